//go:build !purego

package cgo

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

func nativeKernels() []kernel {
	var list []kernel
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ && cpu.X86.HasSSSE3 {
		list = append(list, aesni{})
	}
	return list
}

// aesni is the kernel for AES-NI, PCLMULQDQ and SSSE3, on 16 bytes at a time.
type aesni struct{}

func (aesni) name() string { return "aesni" }

func (aesni) expandAES(ks *aesKey, key *block)   { expandAESNI(ks, key) }
func (aesni) encryptAES(ks *aesKey, x *block)    { encryptAESNI(ks, x) }
func (aesni) decryptAES(ks *aesKey, x *block)    { decryptAESNI(ks, x) }
func (aesni) expandHash(hk *hashKey, key *block) { expandCLMUL(hk, key) }
func (aesni) dot(x, key *block)                  { dotCLMUL(x, key) }

func (aesni) xorKeyStream(ks *aesKey, iv *block, data []byte) {
	xorKeyStreamAESNI(ks, iv, unsafe.SliceData(data), len(data))
}

func (aesni) hash(hk *hashKey, x *block, data []byte) {
	var padded block
	n, last := split(data, &padded)
	hashCLMUL(hk, x, unsafe.SliceData(data), n, last)
}

// expandAESNI sets ks.enc and ks.dec.
//
//go:noescape
func expandAESNI(ks *aesKey, key *block)

//go:noescape
func encryptAESNI(ks *aesKey, x *block)

//go:noescape
func decryptAESNI(ks *aesKey, x *block)

// xorKeyStreamAESNI is xorKeyStream for the n bytes at data.
//
//go:noescape
func xorKeyStreamAESNI(ks *aesKey, iv *block, data *byte, n int)

// expandCLMUL sets the last eight powers and hk.mids.
//
//go:noescape
func expandCLMUL(hk *hashKey, key *block)

// hashCLMUL absorbs n blocks after x: n-1 from data, then the one at last.
//
//go:noescape
func hashCLMUL(hk *hashKey, x *block, data *byte, n int, last *byte)

//go:noescape
func dotCLMUL(x, key *block)

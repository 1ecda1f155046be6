//go:build !purego

package cgo

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

func nativeKernels() []kernel {
	var list []kernel
	x := &cpu.X86
	if x.HasAES && x.HasPCLMULQDQ && x.HasSSSE3 {
		if x.HasBMI2 && x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VL &&
			x.HasAVX512VAES && x.HasAVX512VPCLMULQDQ {
			list = append(list, vaes{})
		}
		list = append(list, aesni{})
	}
	return list
}

// aesni is the kernel for AES-NI, PCLMULQDQ and SSSE3, on 16 bytes at a time.
type aesni struct{}

func (aesni) name() string { return "aesni" }

func (aesni) expandAES(ks *aesKey, key *block)   { expandAESNI(ks, key) }
func (aesni) expandHash(hk *hashKey, key *block) { expandCLMUL(hk, key) }

func (aesni) encrypt(ks *aesKey, x, mask *block) { encryptAESNI(ks, x, mask) }
func (aesni) decrypt(ks *aesKey, x, mask *block) { decryptAESNI(ks, x, mask) }

func (aesni) keystream(ks *aesKey, b, x *block, clear, first uint8, data []byte) {
	keystreamAESNI(ks, b, x, uint64(clear), uint64(first), unsafe.SliceData(data), len(data))
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
func encryptAESNI(ks *aesKey, x, mask *block)

//go:noescape
func decryptAESNI(ks *aesKey, x, mask *block)

//go:noescape
func keystreamAESNI(ks *aesKey, b, x *block, clear, first uint64, data *byte, n int)

// expandCLMUL sets the last eight powers and hk.mids.
//
//go:noescape
func expandCLMUL(hk *hashKey, key *block)

// hashCLMUL absorbs n blocks after x: n-1 from data, then the one at last.
//
//go:noescape
func hashCLMUL(hk *hashKey, x *block, data *byte, n int, last *byte)

// vaes is the kernel for VAES and VPCLMULQDQ with AVX-512, on 64 bytes at a
// time. What works on a single block is as in aesni.
type vaes struct{ aesni }

func (vaes) name() string { return "vaes" }

func (vaes) expandHash(hk *hashKey, key *block) { expandVCLMUL(hk, key) }

func (vaes) keystream(ks *aesKey, b, x *block, clear, first uint8, data []byte) {
	keystreamVAES(ks, b, x, uint64(clear), uint64(first), unsafe.SliceData(data), len(data))
}

func (vaes) hash(hk *hashKey, x *block, data []byte) {
	var padded block
	n, last := split(data, &padded)
	hashVCLMUL(hk, x, unsafe.SliceData(data), n, last)
}

// expandVCLMUL sets all powers of hk.
//
//go:noescape
func expandVCLMUL(hk *hashKey, key *block)

// hashVCLMUL is as hashCLMUL.
//
//go:noescape
func hashVCLMUL(hk *hashKey, x *block, data *byte, n int, last *byte)

//go:noescape
func keystreamVAES(ks *aesKey, b, x *block, clear, first uint64, data *byte, n int)

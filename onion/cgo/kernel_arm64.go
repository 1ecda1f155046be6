//go:build !purego

package cgo

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

func nativeKernels() []kernel {
	var list []kernel
	if cpu.ARM64.HasAES && cpu.ARM64.HasPMULL {
		list = append(list, armv8{})
	}
	return list
}

// armv8 is the kernel for the AES and PMULL instructions of ARMv8.
type armv8 struct{}

func (armv8) name() string { return "armv8" }

func (armv8) expandAES(ks *aesKey, key *block)   { expandAESE(ks, key) }
func (armv8) encryptAES(ks *aesKey, x *block)    { encryptAESE(ks, x) }
func (armv8) decryptAES(ks *aesKey, x *block)    { decryptAESD(ks, x) }
func (armv8) expandHash(hk *hashKey, key *block) { expandPMULL(hk, key) }
func (armv8) dot(x, key *block)                  { dotPMULL(x, key) }

func (armv8) xorKeyStream(ks *aesKey, iv *block, data []byte) {
	xorKeyStreamAESE(ks, iv, unsafe.SliceData(data), len(data))
}

func (armv8) hash(hk *hashKey, x *block, data []byte) {
	var padded block
	n, last := split(data, &padded)
	hashPMULL(hk, x, unsafe.SliceData(data), n, last)
}

// expandAESE sets ks.enc and ks.dec.
//
//go:noescape
func expandAESE(ks *aesKey, key *block)

//go:noescape
func encryptAESE(ks *aesKey, x *block)

//go:noescape
func decryptAESD(ks *aesKey, x *block)

// xorKeyStreamAESE is xorKeyStream for the n bytes at data.
//
//go:noescape
func xorKeyStreamAESE(ks *aesKey, iv *block, data *byte, n int)

// expandPMULL sets the last eight powers and hk.mids.
//
//go:noescape
func expandPMULL(hk *hashKey, key *block)

// hashPMULL absorbs n blocks after x: n-1 from data, then the one at last.
//
//go:noescape
func hashPMULL(hk *hashKey, x *block, data *byte, n int, last *byte)

//go:noescape
func dotPMULL(x, key *block)

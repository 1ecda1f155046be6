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
func (armv8) expandHash(hk *hashKey, key *block) { expandPMULL(hk, key) }

func (armv8) encrypt(ks *aesKey, x, mask *block) { encryptAESE(ks, x, mask) }
func (armv8) decrypt(ks *aesKey, x, mask *block) { decryptAESD(ks, x, mask) }

func (armv8) keystream(ks *aesKey, b, x *block, clear, first uint8, data []byte) {
	keystreamAESE(ks, b, x, uint64(clear), uint64(first), unsafe.SliceData(data), len(data))
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
func encryptAESE(ks *aesKey, x, mask *block)

//go:noescape
func decryptAESD(ks *aesKey, x, mask *block)

//go:noescape
func keystreamAESE(ks *aesKey, b, x *block, clear, first uint64, data *byte, n int)

// expandPMULL sets the last eight powers and hk.mids.
//
//go:noescape
func expandPMULL(hk *hashKey, key *block)

// hashPMULL absorbs n blocks after x: n-1 from data, then the one at last.
//
//go:noescape
func hashPMULL(hk *hashKey, x *block, data *byte, n int, last *byte)

// Package gcm is AES-GCM (NIST SP 800-38D) as records of TLS use it: nonces of 12 bytes and tags of 16.
//
// It is there for speed only. Where the processor has VAES and VPCLMULQDQ with AVX-512, AES-128-GCM is done four
// blocks with each instruction, several times as fast as in package crypto/cipher, which takes one; everywhere else, and
// for longer keys, it is crypto/cipher's. Package link calls it. What New returns belongs to one goroutine at a time.
package gcm

import (
	"crypto/aes"
	"crypto/cipher"
)

// New returns AES-GCM with a key of 16 or 32 bytes, which is not kept. Seal and Open append to dst, whose free capacity
// must be the data itself or not overlap with it. The error is for a key of another length.
func New(key []byte) (cipher.AEAD, error) {
	if len(key) == 16 && native {
		return newNative(key), nil
	}
	return standard(key)
}

func standard(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

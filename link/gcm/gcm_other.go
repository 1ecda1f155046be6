//go:build !amd64 || purego

package gcm

import "crypto/cipher"

const native = false

func newNative([]byte) cipher.AEAD { panic("gcm: not on this processor") }

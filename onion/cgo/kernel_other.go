//go:build purego || !amd64

package cgo

func nativeKernels() []kernel { return nil }

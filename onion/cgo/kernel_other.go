//go:build purego || !(amd64 || arm64)

package cgo

func nativeKernels() []kernel { return nil }

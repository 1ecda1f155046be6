package cgo

import "testing"

// The size of the body of a RELAY cell.
const cellBodySize = 2043

func benchKeys() []byte {
	keys := make([]byte, KeyMaterialSize)
	for i := range keys {
		keys[i] = byte(i)
	}
	return keys
}

// BenchmarkLayer measures one layer of one cell in every role and direction;
// those that end or begin at the hop include the key update. A client's
// Backward is measured on a cell of another hop.
func BenchmarkLayer(b *testing.B) {
	for _, kern := range kernels() {
		r, err := newRelay(kern, cellBodySize, benchKeys())
		if err != nil {
			b.Fatal(err)
		}
		c, err := newClient(kern, cellBodySize, benchKeys())
		if err != nil {
			b.Fatal(err)
		}
		body := make([]byte, cellBodySize)
		run := func(name string, step func()) {
			b.Run(name+"/"+kern.name(), func(b *testing.B) {
				b.SetBytes(cellBodySize)
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
			})
		}
		run("RelayForward", func() { r.Forward(3, body) })
		run("RelayBackward", func() { r.Backward(3, body) })
		run("RelayOriginate", func() { r.Originate(3, body) })
		run("ClientForward", func() { c.Forward(3, body) })
		run("ClientBackward", func() { c.Backward(3, body) })
		run("ClientOriginate", func() { c.Originate(3, body) })
	}
}

// BenchmarkPrimitive measures the parts of a layer.
func BenchmarkPrimitive(b *testing.B) {
	for _, kern := range kernels() {
		var ks aesKey
		var hk hashKey
		var x, key block
		kern.expandAES(&ks, &key)
		kern.expandHash(&hk, &key)
		data := make([]byte, cellBodySize)
		run := func(name string, size int, step func()) {
			b.Run(name+"/"+kern.name(), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					step()
				}
			})
		}
		run("ExpandAES", blockSize, func() { kern.expandAES(&ks, &key) })
		run("ExpandHash", blockSize, func() { kern.expandHash(&hk, &key) })
		run("Encrypt", blockSize, func() { kern.encrypt(&ks, &x, &key) })
		run("Keystream", cellBodySize-TagSize, func() { kern.keystream(&ks, &key, &x, 0xff, 0, data[TagSize:]) })
		run("Hash", cellBodySize+1, func() { kern.hash(&hk, &x, data[TagSize-1:]) })
	}
}

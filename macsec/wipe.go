package macsec

import (
	"reflect"
	"unsafe"
)

// wipe overwrites the structure that v points to: the expanded keys of a
// cipher.Block or cipher.AEAD of the standard library, which has no way to do
// it. Those hold their keys by value and no pointers (a test says so), so this
// is all there is to overwrite, and nothing the garbage collector could miss.
func wipe(v any) {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return
	}
	clear(unsafe.Slice((*byte)(p.UnsafePointer()), p.Type().Elem().Size()))
}

package look

import (
	"fmt"
	"testing"
)

// FuzzCommon: Common and Diff find what a loop over bytes finds.
func FuzzCommon(f *testing.F) {
	f.Add([]byte("abcdefgh_abcdefgh_abcdefgx"), uint8(0), uint8(9), uint8(26))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), uint8(0), uint8(1), uint8(29))
	f.Fuzz(func(t *testing.T, b []byte, i8, j8, end8 uint8) {
		i, j, end := int(i8), int(j8), int(end8)
		if i >= j || j > end || end > len(b) {
			return
		}
		want := 0
		for j+want < end && b[i+want] == b[j+want] {
			want++
		}
		if got := Common(b, i, j, end); got != want {
			t.Errorf("%d equal bytes, want %d", got, want)
		}
		if j+8 <= end && (Diff(b, i, j) == 0) != (want >= 8) {
			t.Errorf("%#x differ, %d bytes are equal", Diff(b, i, j), want)
		}
	})
}

func ExampleCommon() {
	b := []byte("to be, or not to be.")
	fmt.Printf("%#x %d\n", Load32(b, 0), Common(b, 0, 14, len(b)))
	// Output: 0x62206f74 5
}

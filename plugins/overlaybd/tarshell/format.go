package tarshell

// Names and sizes of the format.
const (
	Name       = "overlaybd.commit" // the member that containerd's snapshotter looks for
	HeaderSize = 1536               // bytes before the payload in upstream's form
	PlainSize  = 512                // bytes before the payload in the plain form

	block      = 512
	endSize    = 1024 // zeros at the end
	paxName    = "overlaybd.pax"
	maxPlain   = 1<<33 - 1 // bytes that 11 octal digits can say
	sizeRecord = "size"
)

// A tar header, 512 bytes.                                                       (POSIX ustar; overlaybd-format 3)
//
//	  0 100  name       NUL-terminated
//	100   8  mode       108 8 uid   116 8 gid   octal text; upstream pads with blanks: "100644 \0"
//	124  12  size       bytes; upstream: "          0 ", the true one is in the pax record
//	136  12  mtime      seconds
//	148   8  chksum     sum of all bytes, this field as blanks; upstream: "  5356 \0"
//	156   1  typeflag   '0' or NUL: file; 'x': pax records; 'g': global pax records
//	157 100  linkname
//	257   6  magic      "ustar\0"; readers compare five bytes
//	263   2  version    "00"; the blank of GNU tar is not accepted
//	265  32  uname      297 32 gname   329 8 devmajor   337 8 devminor   345 155 prefix
type headerView []byte

func (h headerView) name() []byte    { return upToNUL(h[:100]) }
func (h headerView) size() []byte    { return h[124:136] }
func (h headerView) chksum() []byte  { return h[148:156] }
func (h headerView) typeflag() byte  { return h[156] }
func (h headerView) magic() string   { return string(h[257:262]) }
func (h headerView) version() string { return string(h[263:265]) }

func upToNUL(b []byte) []byte {
	for k, c := range b {
		if c == 0 {
			return b[:k]
		}
	}
	return b
}

// sums returns the checksum with bytes taken as unsigned and as signed; both are in use.
func (h headerView) sums() (unsigned, signed int64) {
	for k, c := range h[:block] {
		if k >= 148 && k < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return unsigned, signed
}

// isTar is the runtime's test for the first 512 bytes of a layer.
func (h headerView) isTar() bool {
	if h.magic() != "ustar" || h.version() != "00" {
		return false
	}
	return h.sumOK()
}

func (h headerView) sumOK() bool {
	want, ok := octal(h.chksum())
	unsigned, signed := h.sums()
	return ok && (want == unsigned || want == signed)
}

// octal reads blank-padded octal text that ends with a blank, a NUL or the field.
func octal(b []byte) (int64, bool) {
	k := 0
	for k < len(b) && b[k] == ' ' {
		k++
	}
	n, digits := int64(0), 0
	for ; k < len(b) && b[k] >= '0' && b[k] <= '7'; k++ {
		n = n<<3 | int64(b[k]-'0')
		digits++
	}
	return n, digits > 0 && (k == len(b) || b[k] == ' ' || b[k] == 0)
}

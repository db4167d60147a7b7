package ext4

// A POSIX ACL outside (an xattr value, version 2) gives every entry an id; on disk (version 1) only named users and groups
// have one.
//
//	outside: u32 2, then u16 tag, u16 permissions, u32 id        on disk: u32 1, then u16 tag, u16 permissions [, u32 id]
const (
	aclUser  = 0x02
	aclGroup = 0x08
	aclNoID  = 0xffffffff
)

func aclNamed(tag uint32) bool { return tag == aclUser || tag == aclGroup }

func aclKnown(tag uint32) bool {
	switch tag {
	case 0x01, aclUser, 0x04, aclGroup, 0x10, 0x20:
		return true
	}
	return false
}

func aclToDisk(v []byte) ([]byte, bool) {
	if len(v) < 4 || (len(v)-4)%8 != 0 || u32(v, 0) != 2 {
		return nil, false
	}
	out := []byte{1, 0, 0, 0}
	for v = v[4:]; len(v) > 0; v = v[8:] {
		tag := u16(v, 0)
		if !aclKnown(tag) {
			return nil, false
		}
		out = append(out, v[:4]...)
		if aclNamed(tag) {
			out = append(out, v[4:8]...)
		}
	}
	return out, true
}

func aclFromDisk(v []byte) ([]byte, bool) {
	if len(v) < 4 || u32(v, 0) != 1 {
		return nil, false
	}
	out := []byte{2, 0, 0, 0}
	for v = v[4:]; len(v) > 0; {
		if len(v) < 4 || !aclKnown(u16(v, 0)) {
			return nil, false
		}
		out = append(out, v[:4]...)
		id := uint32(aclNoID)
		if aclNamed(u16(v, 0)) {
			if len(v) < 8 {
				return nil, false
			}
			id = u32(v, 4)
			v = v[4:]
		}
		v = v[4:]
		out = le.AppendUint32(out, id)
	}
	return out, true
}

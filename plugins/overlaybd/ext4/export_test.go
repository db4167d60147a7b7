package ext4

// TableOffset is where the first inode table starts, in bytes.
func (im *Image) TableOffset() int64 { return int64(im.descBlock(0, gdInodeTable)) * BlockSize }

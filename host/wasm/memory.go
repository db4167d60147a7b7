package wasm

import "github.com/tetratelabs/wazero/experimental"

// commitStep is how much memory becomes usable at a time at least: a large page of the processor. The guest's own bound is
// exact: wazero compares every address with the size it asked for.
const commitStep = 2 << 20

// memory is the linear memory of one instance: address space for the limit is reserved at once and made usable as the
// guest grows, so that it never moves. wazero asks for it once an instance.
type memory struct {
	limit  uint64
	space  []byte // reserved
	usable uint64
	over   bool // the guest wanted more than the limit
	failed error
}

// Allocate implements experimental.MemoryAllocator.
func (m *memory) Allocate(_, most uint64) experimental.LinearMemory {
	m.space, m.failed = reserve(min(most, m.limit))
	return m
}

// Reallocate implements experimental.LinearMemory. nil makes memory.grow return -1.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.over = true
		return nil
	}
	if m.failed != nil || size > uint64(len(m.space)) {
		return nil
	}
	if size > m.usable {
		end := min((size+commitStep-1)/commitStep*commitStep, uint64(len(m.space)))
		if m.failed = commit(m.space, m.usable, end); m.failed != nil {
			return nil
		}
		m.usable = end
	}
	return m.space[:size:size]
}

// Free implements experimental.LinearMemory.
func (m *memory) Free() {
	if m.space != nil {
		release(m.space)
		m.space = nil
	}
}

//! The memory allocator of a policy: blocks one behind the other, and nothing to search.
//!
//! An instance of a policy lives for one evaluation, so memory need not be used again and again, and
//! what remains is thrown away with the instance. The heap begins with the memory that the module has
//! from the start ([`reservegrid policy build`] gives it enough for the columns of a full block), and
//! grows beyond that only for what is unusual: for the gateway, making a memory larger is the dearest
//! part of a small evaluation. The last block can grow and shrink in place, and is given back when it
//! is freed, which is what happens to a column that a policy is done with.
//!
//! The one file of the SDK written by hand with code that the compiler cannot check. Two things make it sound: wasm
//! without threads runs nothing beside it, and behind `__heap_base` there is nothing else.

#![cfg_attr(target_arch = "wasm32", allow(unsafe_code, reason = "an allocator hands out raw memory"))]

/// Where the blocks lie. Addresses only, so that it can be tested anywhere.
#[derive(Debug)]
struct Heap {
    /// The next block begins here, or a little behind it.
    next: usize,
    /// The memory ends here.
    end: usize,
}

impl Heap {
    /// A place for a block; `grow` makes the memory reach to an address, and says where it then ends.
    fn take(
        &mut self,
        size: usize,
        align: usize,
        grow: impl FnOnce(usize) -> Option<usize>,
    ) -> Option<usize> {
        let start = self.next.checked_next_multiple_of(align)?;
        self.reach(start.checked_add(size)?, grow)?;
        Some(start)
    }

    /// Gives back the last block; any other stays where it is.
    fn give(&mut self, start: usize, size: usize) {
        if start + size == self.next {
            self.next = start;
        }
    }

    /// Whether a block has the new size where it lies.
    fn resize(
        &mut self,
        start: usize,
        [old, new]: [usize; 2],
        grow: impl FnOnce(usize) -> Option<usize>,
    ) -> bool {
        if start + old == self.next {
            return start.checked_add(new).and_then(|end| self.reach(end, grow)).is_some();
        }
        new <= old
    }

    fn reach(&mut self, end: usize, grow: impl FnOnce(usize) -> Option<usize>) -> Option<()> {
        if end > self.end {
            self.end = grow(end)?;
        }
        self.next = end;
        Some(())
    }
}

#[cfg(target_arch = "wasm32")]
mod global {
    use super::Heap;
    use std::{
        alloc::{GlobalAlloc, Layout},
        arch::wasm32::{memory_grow, memory_size},
        cell::UnsafeCell,
        ptr,
    };

    const PAGE: usize = 65_536;
    /// Growing is dear, so it is not done by halves.
    const STEP: usize = 16;

    #[global_allocator]
    static GLOBAL: Global = Global(UnsafeCell::new(Heap { next: 0, end: 0 }));

    struct Global(UnsafeCell<Heap>);

    // SAFETY: wasm without threads, the only wasm that a gateway loads, has one thread.
    unsafe impl Sync for Global {}

    impl Global {
        /// The heap, begun when it is first asked for.
        fn with<T>(&self, work: impl FnOnce(&mut Heap) -> T) -> T {
            // SAFETY: one thread, and `work` is one of the functions above, which do not come back here.
            let heap = unsafe { &mut *self.0.get() };
            if heap.end == 0 {
                unsafe extern "C" {
                    /// The linker's: where the memory that nothing was placed in begins.
                    static __heap_base: u8;
                }
                *heap = Heap { next: (&raw const __heap_base).addr(), end: memory_size(0) * PAGE };
            }
            work(heap)
        }
    }

    fn grow(end: usize) -> Option<usize> {
        let missing = end.div_ceil(PAGE) - memory_size(0);
        let grew = |pages| memory_grow(0, pages) != usize::MAX;
        (grew(missing.next_multiple_of(STEP)) || grew(missing)).then(|| memory_size(0) * PAGE)
    }

    // SAFETY: blocks lie between `__heap_base` and the end of the memory, aligned as asked for, and none
    // begins before the one before it ends, unless that one was given back. `realloc` copies when a
    // block moves.
    unsafe impl GlobalAlloc for Global {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let block = self.with(|heap| heap.take(layout.size(), layout.align(), grow));
            block.map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.with(|heap| heap.give(block.addr(), layout.size()));
        }

        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            if self.with(|heap| heap.resize(block.addr(), [layout.size(), size], grow)) {
                return block;
            }
            // SAFETY: the caller's promise about `size` is that of `Layout`; the two blocks are apart, and
            // the new one is at least as large as what is copied: a smaller one would have stayed.
            unsafe {
                let moved = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !moved.is_null() {
                    ptr::copy_nonoverlapping(block, moved, layout.size());
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;

    fn full(_: usize) -> Option<usize> {
        None
    }

    #[test]
    fn blocks_lie_one_behind_the_other_as_they_must_be_aligned() {
        let mut heap = Heap { next: 3, end: 100 };
        assert_eq!(heap.take(5, 1, full), Some(3));
        assert_eq!(heap.take(16, 8, full), Some(8));
        assert_eq!(heap.take(1, 1, full), Some(24));
    }

    #[test]
    fn the_last_block_is_used_again_and_changes_its_size_in_place() {
        let mut heap = Heap { next: 0, end: 100 };
        assert_eq!(heap.take(10, 1, full), Some(0));
        assert_eq!(heap.take(10, 1, full), Some(10));
        assert!(heap.resize(10, [10, 90], full));
        assert!(!heap.resize(0, [10, 11], full), "there is one behind it");
        assert!(heap.resize(0, [10, 9], full));
        heap.give(0, 9);
        assert_eq!(heap.take(1, 1, full), None, "only the last block is used again");
        heap.give(10, 90);
        assert_eq!(heap.take(90, 1, full), Some(10));
    }

    #[test]
    fn what_does_not_fit_makes_the_memory_grow_and_is_refused_where_it_cannot() {
        let mut heap = Heap { next: 50, end: 100 };
        assert_eq!(heap.take(60, 1, full), None);
        assert_eq!(heap.take(usize::MAX, 1, full), None);
        assert!(!heap.resize(40, [10, 70], full));
        assert_eq!(heap.take(50, 1, full), Some(50), "what was refused took nothing");
        assert_eq!(heap.take(60, 4, |end| (end == 160).then_some(200)), Some(100));
        assert!(heap.resize(100, [60, 200], |end| (end == 300).then_some(300)));
        assert_eq!(heap.end, 300);
    }
}

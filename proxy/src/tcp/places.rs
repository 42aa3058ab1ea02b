//! Numbered places for things of one size: close together, the lowest free one taken first, and given back in blocks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Places of one block.
const BLOCK: usize = 32;

/// See the module.
#[derive(Debug)]
pub(crate) struct Places<T> {
    blocks: Vec<Block<T>>,
    free: BinaryHeap<Reverse<u32>>,
    count: usize,
}

#[derive(Debug)]
struct Block<T> {
    places: Vec<Option<T>>,
    used: usize,
}

impl<T> Default for Places<T> {
    fn default() -> Self {
        Self { blocks: Vec::new(), free: BinaryHeap::new(), count: 0 }
    }
}

impl<T> Places<T> {
    /// Takes something in; its number.
    pub(crate) fn put(&mut self, thing: T) -> u32 {
        if self.free.is_empty() {
            let first = self.blocks.len() * BLOCK;
            self.blocks.push(Block { places: Vec::new(), used: 0 });
            self.free.extend((first..first + BLOCK).filter_map(|place| u32::try_from(place).ok()).map(Reverse));
        }
        let Reverse(number) = self.free.pop().unwrap_or(Reverse(u32::MAX));
        let (block, place) = position(number);
        if let Some(block) = self.blocks.get_mut(block) {
            if block.places.is_empty() {
                block.places = Vec::with_capacity(BLOCK);
                block.places.resize_with(BLOCK, || None);
            }
            if let Some(place) = block.places.get_mut(place) {
                *place = Some(thing);
                block.used += 1;
                self.count += 1;
            }
        }
        number
    }

    pub(crate) fn get(&mut self, number: u32) -> Option<&mut T> {
        let (block, place) = position(number);
        self.blocks.get_mut(block)?.places.get_mut(place)?.as_mut()
    }

    pub(crate) fn take(&mut self, number: u32) -> Option<T> {
        let (block, place) = position(number);
        let block = self.blocks.get_mut(block)?;
        let thing = block.places.get_mut(place)?.take()?;
        block.used -= 1;
        if block.used == 0 {
            block.places = Vec::new();
        }
        self.count -= 1;
        self.free.push(Reverse(number));
        Some(thing)
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// What is at a place.
    pub(crate) fn at(&self, place: usize) -> Option<&T> {
        self.blocks.get(place / BLOCK)?.places.get(place % BLOCK)?.as_ref()
    }

    /// All places are below this.
    pub(crate) fn end(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// All that is in, with its numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let numbered = self.blocks.iter().enumerate().flat_map(|(block, all)| {
            all.places.iter().enumerate().map(move |(place, thing)| (block * BLOCK + place, thing))
        });
        numbered.filter_map(|(number, thing)| Some((u32::try_from(number).ok()?, thing.as_ref()?)))
    }
}

fn position(number: u32) -> (usize, usize) {
    (number as usize / BLOCK, number as usize % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found_and_taken_once() {
        let mut places = Places::default();
        let numbers: Vec<u32> = (0..100).map(|thing| places.put(thing)).collect();
        assert_eq!(places.iter().map(|(number, thing)| (number, *thing)).collect::<Vec<_>>().len(), 100);
        assert_eq!((0..places.end()).filter_map(|place| places.at(place)).count(), 100);
        for (thing, number) in numbers.iter().enumerate() {
            assert_eq!(places.get(*number), Some(&mut thing.clone()));
            assert_eq!((places.take(*number), places.take(*number)), (Some(thing), None));
        }
        assert_eq!((places.count(), places.iter().count()), (0, 0));
        assert_eq!(places.take(u32::MAX), None);
    }

    #[test]
    fn the_lowest_free_place_is_taken_and_empty_blocks_hold_no_memory() {
        let mut places = Places::default();
        for thing in 0..3 * BLOCK {
            places.put(thing);
        }
        for number in [70, 5, 40] {
            places.take(number);
        }
        assert_eq!(places.put(0), 5);
        for number in 0..96 {
            places.take(number);
        }
        assert!(places.blocks.iter().all(|block| block.places.capacity() == 0));
    }
}

use std::rc::Rc;

use super::*;

struct Sample {
    standing: Cell<Option<Standing>>,
    heard: Cell<Instant>,
    is_keeping: Cell<bool>,
    gave_way: Cell<bool>,
}

impl GivesWay for Sample {
    fn standing(&self) -> Option<Standing> {
        self.standing.get().filter(|_| !self.gave_way.get())
    }

    fn last_heard(&self) -> Instant {
        self.heard.get()
    }

    fn is_holding(&self) -> bool {
        self.standing.get() == Some(Standing::Unanswered) && !self.gave_way.get() && !self.is_keeping.get()
    }

    fn is_keeping(&self) -> bool {
        self.is_keeping.get()
    }

    fn forget_sent(&self) {
        self.is_keeping.set(false);
    }

    fn give_way(&self) {
        self.gave_way.set(true);
    }
}

/// All heard at one moment.
fn samples(queue: &Queue<Sample>, standings: &[Standing], heard: Instant) -> Vec<Rc<Sample>> {
    let one = |standing: &Standing| {
        let standing = Cell::new(Some(*standing));
        let sample =
            Sample { standing, heard: Cell::new(heard), is_keeping: Cell::default(), gave_way: Cell::default() };
        Rc::new(sample)
    };
    let samples: Vec<_> = standings.iter().map(one).collect();
    for sample in &samples {
        queue.push(Rc::downgrade(sample), standings.len());
        if sample.standing() == Some(Standing::Confirmed) {
            queue.confirm(Rc::downgrade(sample), heard);
        }
    }
    samples
}

fn gave_way(samples: &[Rc<Sample>]) -> Vec<usize> {
    (0..samples.len()).filter(|place| samples[*place].gave_way.get()).collect()
}

#[test]
fn the_oldest_that_nobody_answered_goes_first_then_the_oldest_that_never_came_back_and_none_in_use() {
    use Standing::{Answered, Confirmed, Unanswered};
    let (queue, now) = (Queue::default(), Instant::now());
    let samples = samples(&queue, &[Confirmed, Answered, Unanswered, Answered, Confirmed, Unanswered], now);
    for expected in [vec![2], vec![2, 5], vec![1, 2, 5], vec![1, 2, 3, 5]] {
        assert!(queue.make_room(6, now));
        assert_eq!(gave_way(&samples), expected);
    }
    let almost = now + QUIET - Duration::from_nanos(1);
    assert!(!queue.make_room(2, almost));
    assert!(queue.make_room(2, now + QUIET), "nobody else is left, and it is not in use");
}

#[test]
fn of_those_that_are_not_in_use_the_one_goes_that_was_silent_for_longest() {
    let (queue, begin) = (Queue::default(), Instant::now());
    let samples = samples(&queue, &[Standing::Confirmed; 4], begin);
    let second = Duration::from_secs(1);
    for (place, after) in [(0, 3), (1, 1), (3, 2)] {
        samples[place].heard.set(begin + second * after);
    }
    // The third one ends by itself.
    samples[2].standing.set(None);
    for expected in [vec![1], vec![1, 3], vec![0, 1, 3]] {
        assert!(queue.make_room(4, begin + 3 * second + QUIET));
        assert_eq!(gave_way(&samples), expected);
    }
    assert!(!queue.make_room(4, begin + 100 * QUIET));
}

#[test]
fn newcomers_have_a_part_of_the_places_though_all_others_came_back_once() {
    use Standing::{Confirmed, Unanswered};
    let (queue, begin) = (Queue::default(), Instant::now());
    let old = samples(&queue, &[Confirmed; 78], begin);
    let now = begin + QUIET;
    let new = samples(&queue, &[Unanswered; 2], now);
    // Of 80 places ten are theirs.
    for count in 1..=8 {
        assert!(queue.make_room(80, now));
        assert_eq!((gave_way(&old).len(), gave_way(&new).len()), (count, 0));
        queue.unconfirm();
    }
    assert!(queue.make_room(80, now));
    assert_eq!(gave_way(&new), [0], "it is a newcomer's turn");
}

#[test]
fn newcomers_make_room_for_each_other_where_all_flows_are_in_use() {
    let (queue, now) = (Queue::default(), Instant::now());
    let used = samples(&queue, &[Standing::Confirmed; 200], now);
    used.iter().for_each(|sample| sample.heard.set(now + QUIET));
    let new = samples(&queue, &[Standing::Unanswered], now + QUIET);
    // What is known of their last words here is old, and is looked up for some of them at a time.
    for _ in 0..4 {
        queue.make_room(201, now + QUIET);
    }
    assert_eq!((gave_way(&used).len(), gave_way(&new).len()), (0, 1));
}

#[test]
fn those_that_have_ended_or_been_confirmed_since_are_passed_over() {
    let (queue, now) = (Queue::default(), Instant::now());
    let mut samples = samples(&queue, &[Standing::Unanswered; 4], now);
    samples.remove(0);
    samples[0].standing.set(Some(Standing::Confirmed));
    samples[1].standing.set(Some(Standing::Answered));
    assert!(queue.make_room(3, now));
    assert_eq!(gave_way(&samples), [2]);
    samples[1].standing.set(Some(Standing::Confirmed));
    assert!(!queue.make_room(2, now));
}

#[test]
fn memory_is_made_by_what_was_sent_already_and_then_by_the_oldest_that_keep_any() {
    let (queue, now) = (Queue::default(), Instant::now());
    let samples = samples(&queue, &[Standing::Unanswered; 6], now);
    samples.iter().for_each(|sample| queue.push_holding(Rc::downgrade(sample), 6));
    samples[0].standing.set(Some(Standing::Answered));
    samples[2].standing.set(Some(Standing::Confirmed));
    for place in [5, 3] {
        samples[place].is_keeping.set(true);
        queue.push_keeping(Rc::downgrade(&samples[place]), 6);
    }
    for left in [vec![3], vec![]] {
        assert!(queue.make_memory());
        assert_eq!((0..6).filter(|place| samples[*place].is_keeping.get()).collect::<Vec<_>>(), left);
        assert!(gave_way(&samples).is_empty());
    }
    // Those two hold again: nobody was where they went.
    for expected in [vec![1], vec![1, 3], vec![1, 3, 4], vec![1, 3, 4, 5]] {
        assert!(queue.make_memory());
        assert_eq!(gave_way(&samples), expected);
    }
    assert!(!queue.make_memory());
}

#[test]
fn a_queue_stays_as_long_as_there_are_flows() {
    let (queue, now) = (Queue::<Sample>::default(), Instant::now());
    for standing in [Standing::Unanswered, Standing::Confirmed] {
        for _ in 0..10_000 {
            for sample in samples(&queue, &[standing], now) {
                queue.push_holding(Rc::downgrade(&sample), 1);
                queue.push_keeping(Rc::downgrade(&sample), 1);
            }
        }
    }
    assert!(queue.unanswered.borrow().len() + queue.confirmed.borrow().len() <= 4 + LOOKS);
    assert!(queue.holding.borrow().len().max(queue.keeping.borrow().len()) <= 2 + LOOKS);
}

//! The keys of a configuration: those that a configuration before it had are the same ones still, with what was taken.

use std::path::PathBuf;
use std::sync::Arc;

use super::{now, Held, Loaded, Ring, Used};
use crate::config::model::{Config, KeyId};
use crate::wire::signature::{HopKey, Stamp};

/// Of each key so many signatures are given to another process: those of some seconds, of a busy proxy.
const HANDED_OVER: usize = 8_192;

/// By [`KeyId`].
#[derive(Debug, Default)]
pub(crate) struct Rings(Vec<Known>);

#[derive(Debug)]
struct Known {
    file: PathBuf,
    ring: Arc<Ring>,
    /// What the ring has when the configuration is in force.
    keys: Arc<[Held]>,
}

/// What was taken of one key: its name, from when on that is all, and each.
pub(crate) type Inherited = ([u8; 16], u64, Vec<(u64, [u8; 16])>);

impl Rings {
    /// Those of a configuration after another one; a file that both name has one ring. [`Self::come_into_force`] is due when
    /// the configuration does.
    pub(crate) fn after(previous: Option<&Self>, config: &Config, loaded: Loaded) -> Self {
        let (before, begun) = (previous.map_or(&[][..], |rings| &rings.0), now());
        let mut made: Vec<Held> = before.iter().flat_map(|known| known.ring.keys().to_vec()).collect();
        let mut held = |key: HopKey| -> Held {
            if let Some(same) = made.iter().find(|same| same.key == key) {
                return same.clone();
            }
            let new = Held { key, used: Arc::new(Used::since(begun)) };
            made.push(new.clone());
            new
        };
        let of_file = |(file, keys): (&crate::config::model::KeyFile, Vec<HopKey>)| {
            let keys: Arc<[Held]> = keys.into_iter().map(&mut held).collect();
            let same = before.iter().find(|known| known.file == file.path).map(|known| Arc::clone(&known.ring));
            let ring = same.unwrap_or_else(|| Arc::new(Ring::new(Arc::clone(&keys))));
            Known { file: file.path.clone(), ring, keys }
        };
        Self(config.key_files.iter().zip(loaded.0).map(of_file).collect())
    }

    /// From here on these keys sign and verify.
    pub(crate) fn come_into_force(&self) {
        self.0.iter().for_each(|known| known.ring.set(Arc::clone(&known.keys)));
    }

    pub(crate) fn get(&self, id: KeyId) -> Option<&Arc<Ring>> {
        self.0.get(id.0).map(|known| &known.ring)
    }

    /// What is to be said of peers whose clocks are apart from this host's.
    pub(crate) fn to_tell(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().filter_map(|known| known.ring.to_tell())
    }

    /// What another process must know. No key is in it.
    pub(crate) fn taken(&self) -> Vec<Inherited> {
        let mut all: Vec<Inherited> = Vec::new();
        for held in self.0.iter().flat_map(|known| known.keys.iter()) {
            if all.iter().all(|(name, ..)| *name != held.key.name()) {
                let (since, latest) = held.used.latest(HANDED_OVER);
                all.push((held.key.name(), since, latest.into_iter().map(|stamp| (stamp.time, stamp.nonce)).collect()));
            }
        }
        all
    }

    /// Goes on with what another process has taken.
    pub(crate) fn inherit(&self, taken: Vec<Inherited>) {
        for (name, since, stamps) in taken {
            let mut all = self.0.iter().flat_map(|known| known.keys.iter());
            if let Some(held) = all.find(|held| held.key.name() == name) {
                held.used.inherit(since, stamps.into_iter().map(|(time, nonce)| Stamp { time, nonce }));
            }
        }
    }
}

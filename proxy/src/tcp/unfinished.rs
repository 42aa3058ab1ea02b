//! A stream whose end is a reset unless it is finished: what was cut short must not look complete, also when the proxy's own
//! end cuts it short.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unfinished<S: AsFd>(Option<S>);

impl<S: AsFd> Unfinished<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Some(stream))
    }

    /// The stream. It is there: only what consumes this takes it out.
    pub(crate) fn get(&mut self) -> Option<&mut S> {
        self.0.as_mut()
    }

    /// The same stream in another form, as unfinished.
    pub(crate) fn into_form<T: AsFd, E>(mut self, form: impl FnOnce(S) -> Result<T, E>) -> Option<Unfinished<T>> {
        let stream = self.0.take()?;
        form(stream).ok().map(Unfinished::new)
    }

    /// Closes it in order: nothing is owed any more.
    pub(crate) fn finish(mut self) {
        self.0 = None;
    }
}

impl<S: AsFd> Drop for Unfinished<S> {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            reset(stream);
        }
    }
}

/// Makes the end of a stream a reset.
pub(crate) fn reset(stream: &impl AsFd) {
    // A socket that refuses this is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

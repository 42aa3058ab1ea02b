//! A new process of this program takes over from the running one without losing a connection or a flow: it asks at the admin
//! socket, and gets what the running one has open (`SCM_RIGHTS`, unix(7)).
//!
//! ```text
//! new                                          running
//! hand_over, version                 ->
//!                                    <-        Sockets, AdminSocket, Metrics, Keeper; OfferEnds
//! (binds what is new, enters the sandbox, starts its workers: until here nothing has happened)
//! Taken                              ->        receives no more datagrams; connections are still accepted
//!                                    <-        Flows, Denied; Over
//! (listens)
//! Serving                            ->        accepts no more
//!                                    <-        closes; goes on with its connections until they have ended
//! ```
//!
//! If the new one fails before it has said that it serves, the running one takes its flows back. Sockets are never closed
//! on the way, so what waits in them is found by whoever goes on.

pub(crate) mod bequest;
pub(crate) mod channel;
pub(crate) mod giving;
pub(crate) mod heir;
pub(crate) mod message;

pub(crate) use message::VERSION;

//! What is known of the candidates of backends, and how the addresses of one are dialled.

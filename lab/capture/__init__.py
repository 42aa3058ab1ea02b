"""From packet sockets of nodes to one pcapng file: what a wire would have carried, by which interface, and when."""

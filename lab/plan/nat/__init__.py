"""A router's NAT as what carries it out: nftables text, or a configuration and rules for natbox. Pure."""

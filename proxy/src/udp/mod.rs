//! UDP: flows of datagrams between clients and backends.

mod sending;

//! Short names where no server answers: what is known is in the cache.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use tokio::task::LocalSet;

use super::*;

const STALE: Duration = Duration::from_secs(1000);

/// Nobody listens at its server.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("edgeproxy-search-{}-{test}", std::process::id()));
        std::fs::write(&path, "nameserver 127.253.7.9\nsearch home.example lan\n").unwrap();
        Self(path)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn with_names<F: std::future::Future<Output = ()>>(test: &str, run: impl FnOnce(Names) -> F) {
    let files = Files::new(test);
    let settings = Resolver {
        servers: Vec::new(),
        timeout: Duration::from_secs(20),
        stale: STALE,
        negative: Duration::from_secs(10),
        min_ttl: Duration::ZERO,
        max_ttl: Duration::from_secs(3600),
        cache_entries: NonZeroUsize::new(100).unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = SystemFiles { hosts: "/nonexistent/hosts".into(), resolv_conf: (&files.0).into() };
    runtime.block_on(LocalSet::new().run_until(run(Names::new(&settings, files))));
}

fn learn(names: &Names, name: &str, last: Option<u8>, ttl: u64) {
    let known = last.map_or(Known::NoSuchName, |last| Known::Addresses([IpAddr::from([192, 0, 2, last])].into()));
    let host = HostName::parse(name).unwrap();
    names.shared.cache.borrow_mut().learn(&host, known, Duration::from_secs(ttl), now());
}

async fn ask(names: &Names, name: &str) -> Result<String, NameError> {
    Ok(names.addresses_by_search(None, name).await?.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "))
}

/// Lets the clock of the cache go forward, while no query is under way.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[test]
fn a_name_that_a_later_domain_had_is_served_when_the_servers_are_gone() {
    for denied in [&["nas.home.example"][..], &["nas.home.example", "nas.lan"]] {
        with_names(&format!("gone-{}", denied.len()), |names| async move {
            let is_found_as = ["nas.lan", "nas"][denied.len() - 1];
            denied.iter().for_each(|name| learn(&names, name, None, 10));
            learn(&names, is_found_as, Some(1), 60);
            assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.1");
            pass(Duration::from_secs(20)).await;
            assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.1", "its addresses hold, the denial does not");
            assert!(names.shared.lookups.borrow().is_empty(), "nobody is asked");
            pass(Duration::from_secs(60)).await;
            assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.1", "stale");
            let found = names.shared.cache.borrow_mut().find(&HostName::parse(is_found_as).unwrap(), now());
            assert!(
                matches!(found, Found::Stale { refresh: Refresh::Resting | Refresh::Failing, .. }),
                "nobody waits again: {found:?}"
            );
            pass(Duration::from_secs(30)).await;
            assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.1", "stale");
            pass(STALE).await;
            assert!(matches!(ask(&names, "nas").await, Err(NameError::Unanswered(_))));
        });
    }
}

#[test]
fn when_its_addresses_have_run_out_the_domains_go_by_their_order_again() {
    with_names("order", |names| async move {
        learn(&names, "nas.home.example", None, 10);
        learn(&names, "nas.lan", Some(1), 60);
        assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.1");
        pass(Duration::from_secs(60)).await;
        learn(&names, "nas.home.example", Some(2), 60);
        assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.2");
        learn(&names, "nas.home.example", None, 10);
        learn(&names, "nas.lan", None, 10);
        learn(&names, "nas", None, 10);
        assert_eq!(ask(&names, "nas").await, Err(NameError::NoSuchName));
    });
}

#[test]
fn what_only_a_client_asked_for_is_not_what_the_file_means() {
    with_names("client", |names| async move {
        learn(&names, "nas", Some(1), 60);
        assert_eq!(names.addresses("nas").await.unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert!(matches!(ask(&names, "nas").await, Err(NameError::Unanswered(_))));
    });
}

#[test]
fn a_final_dot_ends_the_search() {
    with_names("dot", |names| async move {
        learn(&names, "nas.home.example", Some(2), 60);
        learn(&names, "nas", Some(1), 60);
        assert_eq!(ask(&names, "nas").await.unwrap(), "192.0.2.2");
        assert_eq!(ask(&names, "nas.").await.unwrap(), "192.0.2.1");
    });
}

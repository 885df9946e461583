//! Arguments of vhost-user ports, in two forms: `vhost=PATH,...`, and those of DPDK's driver `net_vhost`.

use super::socket::{SocketError, refuse};

/// Longest path of a Unix socket, in bytes: the kernel's `sun_path` less the byte that ends it.
pub const MAX_SOCKET_PATH: usize = 107;

/// Most pairs of queues of a vhost-user port: librte_vhost has 256 rings a guest.
pub const MAX_VHOST_QUEUES: u16 = 128;

/// Names of DPDK's driver, each followed by whatever tells one device from another.
const DRIVERS: [&str; 2] = ["net_vhost", "eth_vhost"];

/// What is asked of a socket besides its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Options {
    /// The guest's end listens.
    pub(super) client: bool,
    /// Pairs of queues.
    pub(super) queues: u16,
    /// TCP segmentation is offered.
    pub(super) tso: bool,
    /// The guest's memory may be missing for a while.
    pub(super) postcopy: bool,
    /// The guest may be behind an IOMMU of its own.
    pub(super) iommu: bool,
    /// A frame takes one buffer, or is dropped.
    pub(super) linear: bool,
    /// Buffers of other memory for frames that take more than one.
    pub(super) extbuf: bool,
    /// Frames come and go finished.
    pub(super) finished: bool,
}

/// An argument of either form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arg {
    Path,
    Mode,
    Client,
    Queues,
    Tso,
    Postcopy,
    Iommu,
    Linear,
    Extbuf,
    Legacy,
}

/// One of the two forms: its arguments, that of the path first, and how it says yes and no.
struct Form {
    args: &'static [(&'static str, Arg)],
    no: &'static str,
    yes: &'static str,
}

const OURS: Form = Form {
    args: &[
        ("vhost", Arg::Path),
        ("mode", Arg::Mode),
        ("queues", Arg::Queues),
        ("tso", Arg::Tso),
        ("postcopy", Arg::Postcopy),
    ],
    no: "off",
    yes: "on",
};

const DPDKS: Form = Form {
    args: &[
        ("iface", Arg::Path),
        ("client", Arg::Client),
        ("queues", Arg::Queues),
        ("tso", Arg::Tso),
        ("postcopy-support", Arg::Postcopy),
        ("iommu-support", Arg::Iommu),
        ("linear-buffer", Arg::Linear),
        ("ext-buffer", Arg::Extbuf),
        ("legacy-ol-flags", Arg::Legacy),
    ],
    no: "0",
    yes: "1",
};

/// Whether these are a vhost-user port's.
pub(crate) fn are_ours(devargs: &str) -> bool {
    form(devargs).is_some()
}

/// The form, and its arguments.
fn form(devargs: &str) -> Option<(&'static Form, &str)> {
    let devargs = devargs.trim_start();
    if devargs.starts_with("vhost=") {
        return Some((&OURS, devargs));
    }
    let device = devargs.strip_prefix("vdev:").unwrap_or(devargs);
    let is_drivers = DRIVERS.iter().any(|driver| device.starts_with(driver));
    is_drivers.then(|| (&DPDKS, device.split_once(',').map_or("", |(_, args)| args)))
}

/// The key of the path, the path and the rest; `None` for another kind of device.
pub(super) fn read(devargs: &str) -> Result<Option<(&'static str, &str, Options)>, SocketError> {
    let Some((form, args)) = form(devargs) else { return Ok(None) };
    let (key, mut path) = (form.args[0].0, None);
    // DPDK's driver offers no segmentation unless it is told to; here it is on in both forms.
    let mut options = Options {
        client: false,
        queues: 1,
        tso: true,
        postcopy: false,
        iommu: false,
        linear: false,
        extbuf: false,
        finished: false,
    };
    let mut seen: Vec<&str> = Vec::new();
    for text in args.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let Some(&(name, arg)) = form.args.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = form.args.iter().map(|(known, _)| *known).collect();
            return refuse(
                format!("{name:?} is no argument of a vhost-user port"),
                format!("use {}", known.join(", ")),
            );
        };
        if seen.contains(&name) {
            return refuse(format!("{name} is given twice"), "keep one of them");
        }
        seen.push(name);
        let flag = || match value {
            v if v == form.yes => Ok(true),
            v if v == form.no => Ok(false),
            v => refuse(format!("{name}={v} is neither"), format!("use {} or {}", form.yes, form.no)),
        };
        match arg {
            Arg::Path => path = Some(value),
            Arg::Mode => options.client = mode(value)?,
            Arg::Client => options.client = flag()?,
            Arg::Queues => options.queues = queues(value)?,
            Arg::Tso => options.tso = flag()?,
            Arg::Postcopy => options.postcopy = flag()?,
            Arg::Iommu => options.iommu = flag()?,
            Arg::Linear => options.linear = flag()?,
            Arg::Extbuf => options.extbuf = flag()?,
            Arg::Legacy => options.finished = flag()?,
        }
    }
    match path {
        None => {
            refuse(format!("{key} is missing"), format!("add {key}=PATH, the path of the guest's socket"))
        }
        Some("") => refuse(format!("{key} is empty"), "give the path of the guest's socket"),
        Some(path) if path.len() > MAX_SOCKET_PATH => {
            let what = format!("{key}={path} has {} bytes", path.len());
            refuse(what, format!("the path of a socket has at most {MAX_SOCKET_PATH}"))
        }
        Some(path) => Ok(Some((key, path, options))),
    }
}

/// Whether the switch is the connecting side.
fn mode(value: &str) -> Result<bool, SocketError> {
    match value {
        "server" => Ok(false),
        "client" => Ok(true),
        other => {
            let remedy = "use server where the switch listens and the guest connects, or client";
            refuse(format!("mode={other} is unknown"), remedy)
        }
    }
}

fn queues(value: &str) -> Result<u16, SocketError> {
    let plain = value.bytes().all(|b| b.is_ascii_digit()) && !value.starts_with('0');
    let number = value.parse::<u16>().ok().filter(|n| plain && (1..=MAX_VHOST_QUEUES).contains(n));
    number.map_or_else(
        || refuse(format!("queues={value} is out of range"), format!("use 1 to {MAX_VHOST_QUEUES}")),
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(devargs: &str) -> (&'static str, &str, Options) {
        read(devargs).expect("good").expect("a vhost-user port")
    }

    #[track_caller]
    fn refused(devargs: &str, wanted: &str) {
        let error = read(devargs).expect_err(devargs).to_string();
        assert!(error.contains(wanted), "{devargs}: {error:?} says {wanted:?}");
    }

    #[test]
    fn r18_arguments_out_of_range_are_refused_with_the_bound() {
        for other in ["net_tap0,iface=tap0", "0000:03:00.0", "net_virtio_user0,path=/a", ""] {
            assert_eq!(read(other), Ok(None));
            assert!(!are_ours(other));
        }
        let long = format!("/{}", "x".repeat(MAX_SOCKET_PATH - 1));
        for form in ["net_vhost0,iface", "vhost"] {
            let (key, path, _) =
                read(&format!("{form}={long}")).expect("good").map(|r| (r.0, r.1.len(), r.2)).expect("ours");
            assert!(form.ends_with(key) && path == MAX_SOCKET_PATH);
            refused(&format!("{form}={long}y"), "has 108 bytes; the path of a socket has at most 107");
            refused(&format!("{form}="), "is empty");
            for good_one in ["1", "2", "128"] {
                let devargs = format!("{form}=/a,queues={good_one}");
                assert_eq!(good(&devargs).2.queues.to_string(), good_one);
            }
            // DPDK would read 010 as eight, and 65537 as one.
            for bad in ["0", "129", "200", "65537", "-1", "", "x", "010", "0x10"] {
                refused(&format!("{form}=/a,queues={bad}"), "use 1 to 128");
            }
        }
        refused("vdev:eth_vhost0,queues=2", "iface is missing");
        refused("net_vhost0", "iface is missing");
        refused("net_vhost0,iface=/a,iface=/b", "iface is given twice");
        refused("vhost=/a,vhost=/b", "vhost is given twice");
    }

    #[test]
    fn r18_both_forms_say_the_same_and_unknown_arguments_are_refused() {
        let plain = good("vhost=/a").2;
        assert_eq!((plain.client, plain.queues, plain.tso, plain.postcopy), (false, 1, true, false));
        assert_eq!(good("net_vhost7,iface=/a"), ("iface", "/a", plain));
        let ours = good("vhost=/run/v 1.sock,mode=client,queues=4,tso=off,postcopy=on");
        let dpdks = good("vdev:net_vhost0,queues=4,iface=/run/v 1.sock,client=1,tso=0,postcopy-support=1");
        assert_eq!((ours.1, ours.2), (dpdks.1, dpdks.2));
        assert_eq!(good("vhost=/a,mode=server,tso=on,postcopy=off").2, plain);
        assert!(good("net_vhost0,iface=/a,legacy-ol-flags=1").2.finished);
        assert!(good("net_vhost0,iface=/a,iommu-support=1,ext-buffer=1").2.iommu);

        refused(
            "vhost=/a,bogus=1",
            "\"bogus\" is no argument of a vhost-user port; use vhost, mode, queues, tso",
        );
        refused("vhost=/a,iface=/b", "\"iface\" is no argument");
        refused("net_vhost0,iface=/a,mode=client", "use iface, client, queues");
        refused("vhost=/a,mode=both", "use server");
        refused("vhost=/a,tso=1", "use on or off");
        refused("net_vhost0,iface=/a,tso=off", "use 1 or 0");
        refused("vhost=/a,tso", "use on or off");
    }
}

//! The C library's lookup of names, which a container's root must not configure: what `/etc/nsswitch.conf` names is
//! loaded as a library from that root (nsswitch.conf(5), 'FILES'), into the process that holds the components' secrets.

use std::ffi::{CStr, c_char, c_int};
use std::io;

/// What is looked up, and by which services, all part of the C library: `/etc/hosts` and DNS, as containers expect, and the
/// users of `/etc/passwd`, among whom libcontainer looks for a home.
const LOOKUPS: [(&CStr, &CStr); 8] = [
    (c"group", c"files"),
    (c"hosts", c"files dns"),
    (c"initgroups", c"files"),
    (c"networks", c"files"),
    (c"passwd", c"files"),
    (c"protocols", c"files"),
    (c"services", c"files"),
    (c"shadow", c"files"),
];

// SAFETY: so the C library declares and exports it.
#[expect(unsafe_code, reason = "see above")]
unsafe extern "C" {
    /// From glibc's `nss.h`. It keeps nothing of its arguments.
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Leaves nothing to a root's configuration, for the rest of this process and its clones.
pub(super) fn use_built_in_services() -> io::Result<()> {
    for (database, services) in LOOKUPS {
        // SAFETY: both are strings that end with a zero, and are read only.
        #[expect(unsafe_code, reason = "see above")]
        if unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

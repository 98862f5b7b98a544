//! The metadata of the component, with the names, defaults and units of Dapr.
//!
//! Source: dapr/components-contrib `common/component/redis/settings.go`.

use crate::field::{Field, fields};
use crate::state::ttl::TTL_IN_SECONDS;

fields! {
    pub(super) FIELDS {
        HOST = Field::text(
            "redisHost",
            "an address, `host:port`, or several with commas: servers of a cluster, or sentinels",
        ).required();
        PORT = Field::integer("redisPort", "the port of every host that is written without one; 6379 where neither says");
        USERNAME = Field::text("redisUsername", "without one: the server's default user");
        PASSWORD = Field::secret("redisPassword", "without one: none is sent");
        DATABASE = Field::integer("redisDB", "the number of the database; without effect in a cluster, as with Dapr").or("0");
        TYPE = Field::text("redisType", "`node` or `cluster`; without effect with `failover`").or("node");
        FAILOVER = Field::flag("failover", "`true`: `redisHost` names sentinels, which know the master");
        SENTINEL_MASTER_NAME = Field::text("sentinelMasterName", "what the sentinels call the master; `failover` needs it");
        SENTINEL_USERNAME = Field::text("sentinelUsername", "as `redisUsername`, for sentinels");
        SENTINEL_PASSWORD = Field::secret("sentinelPassword", "as `redisPassword`, for sentinels");
        ENABLE_TLS = Field::flag("enableTLS", "`true`: TLS, to servers and sentinels alike");
        SKIP_VERIFY = Field::flag("insecureSkipTLSVerify", "`true`: whoever answers is taken for the server");
        CLIENT_CERT = Field::text("clientCert", "PEM, for servers that want one; without `clientKey` it counts for nothing");
        CLIENT_KEY = Field::secret("clientKey", "PEM, the private key of `clientCert`");
        MAX_RETRIES = Field::integer("redisMaxRetries", "how often a command is tried again; zero is the default, a negative number is never")
            .also(&["maxRetries"]).or("3");
        MIN_RETRY_INTERVAL = Field::milliseconds(
            "redisMinRetryInterval",
            "the pause before the first retry, which doubles; below zero: none. Dapr's own default, 2 s, is cut down by \
             its client to the longest",
        ).or("8ms");
        MAX_RETRY_INTERVAL = Field::milliseconds("redisMaxRetryInterval", "the longest pause; below zero: none").or("512ms");
        DIAL_TIMEOUT = Field::milliseconds("dialTimeout", "for each connection: name, TCP, TLS and password").or("5s");
        READ_TIMEOUT = Field::milliseconds(
            "readTimeout",
            "how long an answer may take; below zero: for ever. Many guests share a connection, so that reading and \
             writing cannot be told apart: the longer of the two time-outs counts",
        ).or("3s");
        WRITE_TIMEOUT = Field::milliseconds("writeTimeout", "as `readTimeout`, whose value it has where nothing is written");
        DEFAULT_TTL = Field::integer(
            TTL_IN_SECONDS,
            "how many seconds a value lives whose request does not say; zero and below: for ever",
        );
        USE_ENTRA_ID = Field::refused("useEntraID", "logging in with Microsoft Entra ID");
        USE_AZURE_AD = Field::refused("useAzureAD", "its former name");
        USE_OIDC = Field::refused("useOIDC", "logging in with OpenID Connect");
    }
}

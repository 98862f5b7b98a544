//! The metadata of the component, with the names, defaults and units of Dapr.
//!
//! Source: dapr/components-contrib `common/authentication/postgresql/metadata.go` and
//! `state/postgresql/v2/metadata.go`.

use crate::field::{Field, fields};
use crate::state::sql;

fields! {
    pub(super) FIELDS {
        CONNECTION_STRING = Field::secret(
            "connectionString",
            "a URL, or pairs such as `host=db user=me password=secret dbname=app`. Not needed where the fields below \
             say where the server is; they count before what is in it. Settings of a session such as `search_path` and \
             `statement_timeout` may be among them",
        ).also(&["url"]);
        HOST = Field::text("host", "name of the server, or folder of its Unix socket");
        HOSTADDR = Field::text("hostaddr", "its address, where the name is not to be looked up");
        PORT = Field::text("port", "its port; 5432 where nobody says so");
        DATABASE = Field::text("database", "name of the database");
        USER = Field::text("user", "who logs in");
        PASSWORD = Field::secret("password", "the user's password");
        SSL_ROOT_CERT = Field::text("sslRootCert", "a file in the container: PEM, who vouches for the server");
        TABLE_PREFIX = Field::text(
            "tablePrefix",
            "what the name of the table, `state`, begins with; `schema.` may be in front",
        );
        METADATA_TABLE_NAME = Field::text("metadataTableName", "the table of what was migrated and cleaned up").or("dapr_metadata");
        TIMEOUT = sql::TIMEOUT;
        CLEANUP_INTERVAL = sql::CLEANUP_INTERVAL.or("1h");
        MAX_CONNS = Field::integer(
            "maxConns",
            "how many connections there may be; without it, and for zero and below, `pool_max_conns` of the connection \
             string, or as many as processors, at least 4",
        );
        MAX_IDLE_TIME = Field::seconds("connectionMaxIdleTime", "how long a connection is kept that nobody uses").or("30m");
        QUERY_EXEC_MODE = Field::text(
            "queryExecMode",
            "`cache_statement`: statements are prepared once for each connection; `cache_describe`, `describe_exec`, \
             `exec`, `simple_protocol`: they are not, for proxies that share connections",
        ).or("cache_statement");
        USE_AZURE_AD = Field::refused("useAzureAD", "logging in with Microsoft Entra ID");
        USE_AWS_IAM = Field::refused("useAWSIAM", "logging in with AWS IAM");
    }
}

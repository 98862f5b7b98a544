//! Serves the guest `http` as a container does, or the same answer without a guest, for a load generator:
//! `http-server bare|wasmtime|wasmer [fresh|reuse]`. The address is on standard output.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;

use benches::{guest, load};
use bytes::Bytes;
use engines::engine::{Preopen, WasiConfig};
use engines::module_info::ModuleInfo;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use shim::guest_host::trigger::http::{HttpOptions, Instances, serve};
use shim::guest_host::trigger::{Guests, initializer};
use shim::guest_host::workers::Workers;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (engine, instances) = match args[..] {
        [engine] | [engine, "fresh"] => (engine, Instances::Fresh),
        [engine, "reuse"] => (engine, Instances::Reuse),
        _ => return Err("http-server bare|wasmtime|wasmer [fresh|reuse]".into()),
    };
    benches::runtime().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        match engine {
            "bare" => bare(listener).await,
            engine => with_guests(listener, engine, instances).await,
        }
    })
}

async fn bare(listener: TcpListener) -> Result<(), Box<dyn Error>> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello)));
    }
}

async fn hello(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::from("Hello from WASM!"));
    let text = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, text);
    Ok(response)
}

async fn with_guests(listener: TcpListener, engine: &str, instances: Instances) -> Result<(), Box<dyn Error>> {
    let engine = engines::built_in().into_iter().find(|known| known.name() == engine).ok_or("no such engine")?;
    let options = HttpOptions { instances, ..HttpOptions::default() };
    let module = guest("http");
    let initializer = initializer(&ModuleInfo::read(&module)?);
    let module = load(&*engine, &module);
    let preopens = vec![Preopen { host: "/".into(), guest: "/".to_owned() }];
    let wasi = Arc::new(WasiConfig { preopens, ..WasiConfig::empty()? });
    let guests = Guests { module, host: Arc::default(), wasi, initializer };
    let workers = Workers::start(thread::available_parallelism()?.get())?;
    serve(listener, guests, options, workers, CancellationToken::new())?.await;
    Ok(())
}

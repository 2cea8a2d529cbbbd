//! `reservegrid ledger export`: the records for other programs, one row each, in the order of the chain.
//!
//! NDJSON has the events as the event stream has them. CSV and Parquet have the same fields as columns, one
//! table for all kinds of records; what a kind does not have is empty.

use super::{
    corrupt::Corruption,
    read::{Entry, Ledger},
    record::{Record, reversed},
};
use parquet::{
    basic::Compression,
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use std::{
    io::{self, Write},
    sync::Arc,
};
use thiserror::Error;

/// Rows of Parquet that are written together.
const ROW_GROUP: usize = 1 << 16;

/// Why an export ended.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The ledger is not as it was written; what stands before was exported.
    #[error("{0}")]
    Corrupt(#[from] Box<Corruption>),
    /// It cannot be written where it is to go.
    #[error("the export cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The same, of CSV.
    #[error("the export cannot be written: {0}")]
    Csv(#[from] csv::Error),
    /// The same, of Parquet.
    #[error("the export cannot be written: {0}")]
    Parquet(#[from] ParquetError),
}

/// What a column holds.
#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Float,
    Bool,
    Text,
}

/// The columns of CSV and Parquet.
const COLUMNS: [(&str, Kind); 23] = [
    ("record", Kind::Integer),
    ("time_ms", Kind::Integer),
    ("event", Kind::Text),
    ("share_id", Kind::Text),
    ("user_identity", Kind::Text),
    ("worker", Kind::Text),
    ("connection", Kind::Integer),
    ("channel", Kind::Integer),
    ("job", Kind::Integer),
    ("template", Kind::Text),
    ("height", Kind::Integer),
    ("previous_block_hash", Kind::Text),
    ("difficulty", Kind::Float),
    ("version", Kind::Integer),
    ("ntime", Kind::Integer),
    ("nonce", Kind::Integer),
    ("extranonce", Kind::Text),
    ("held", Kind::Bool),
    ("solves_block", Kind::Bool),
    ("reason", Kind::Text),
    ("detail", Kind::Text),
    ("attempts", Kind::Integer),
    ("coinbase_value", Kind::Integer),
];

/// One cell.
enum Value {
    None,
    Integer(i64),
    Float(f64),
    Bool(bool),
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Integer(number.cast_signed())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// One event a line.
///
/// # Errors
/// [`ExportError`].
pub fn ndjson(ledger: &Ledger, out: impl Write) -> Result<(), ExportError> {
    let mut out = io::BufWriter::new(out);
    ledger.walk(|entry| {
        serde_json::to_writer(&mut out, &entry.record.json()).map_err(io::Error::from)?;
        Ok::<_, ExportError>(out.write_all(b"\n")?)
    })?;
    Ok(out.flush()?)
}

/// CSV with a line of column names (RFC 4180).
///
/// # Errors
/// [`ExportError`].
pub fn csv(ledger: &Ledger, out: impl Write) -> Result<(), ExportError> {
    let mut out = csv::Writer::from_writer(out);
    out.write_record(COLUMNS.map(|(name, _)| name))?;
    ledger.walk(|entry| {
        let cells = row(&entry).map(|value| match value {
            Value::None => String::new(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(text) => text,
        });
        Ok::<_, ExportError>(out.write_record(cells)?)
    })?;
    Ok(out.flush()?)
}

/// One Parquet file, compressed with Snappy.
///
/// # Errors
/// [`ExportError`].
pub fn parquet(ledger: &Ledger, out: impl Write + Send) -> Result<(), ExportError> {
    let fields: String = COLUMNS
        .iter()
        .map(|(name, kind)| match kind {
            Kind::Integer => format!("OPTIONAL INT64 {name};"),
            Kind::Float => format!("OPTIONAL DOUBLE {name};"),
            Kind::Bool => format!("OPTIONAL BOOLEAN {name};"),
            Kind::Text => format!("OPTIONAL BYTE_ARRAY {name} (UTF8);"),
        })
        .collect();
    let schema = Arc::new(parse_message_type(&format!("message ledger {{ {fields} }}"))?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer = SerializedFileWriter::new(out, schema, properties)?;
    let mut rows = Vec::new();
    ledger.walk(|entry| {
        rows.push(row(&entry));
        if rows.len() == ROW_GROUP { row_group(&mut writer, &mut rows) } else { Ok(()) }
    })?;
    if !rows.is_empty() {
        row_group(&mut writer, &mut rows)?;
    }
    writer.close()?;
    Ok(())
}

type Row = [Value; COLUMNS.len()];

fn row_group<W: Write + Send>(
    writer: &mut SerializedFileWriter<W>,
    rows: &mut Vec<Row>,
) -> Result<(), ExportError> {
    let mut group = writer.next_row_group()?;
    for (at, (_, kind)) in COLUMNS.iter().enumerate() {
        let Some(mut column) = group.next_column()? else { break };
        let there: Vec<i16> = rows.iter().map(|row| i16::from(!matches!(row[at], Value::None))).collect();
        let there = Some(&there[..]);
        macro_rules! write {
            ($type:ty, $variant:ident($value:ident) => $cell:expr) => {{
                let cells: Vec<_> = rows
                    .iter()
                    .filter_map(|row| match &row[at] {
                        Value::$variant($value) => Some($cell),
                        _ => None,
                    })
                    .collect();
                column.typed::<$type>().write_batch(&cells, there, None)?;
            }};
        }
        match kind {
            Kind::Integer => write!(Int64Type, Integer(number) => *number),
            Kind::Float => write!(DoubleType, Float(number) => *number),
            Kind::Bool => write!(BoolType, Bool(value) => *value),
            Kind::Text => write!(ByteArrayType, Text(text) => ByteArray::from(text.as_str())),
        }
        column.close()?;
    }
    group.close()?;
    rows.clear();
    Ok(())
}

fn row(entry: &Entry<'_>) -> Row {
    let mut row = [const { Value::None }; COLUMNS.len()];
    let mut set = |name: &str, value: Value| {
        if let Some(at) = COLUMNS.iter().position(|(column, _)| *column == name) {
            row[at] = value;
        }
    };
    let record = &entry.record;
    set("record", entry.at.record.into());
    set("time_ms", record.time_ms().into());
    set("share_id", Value::Text(reversed(record.share_id())));
    match record {
        Record::Accepted(share) => {
            set("event", "share_accepted".into());
            set("user_identity", share.user_identity.into());
            set("worker", share.worker.map_or(Value::None, Value::from));
            set("connection", share.connection.into());
            set("channel", share.channel.into());
            set("job", share.job.into());
            set("template", Value::Text(hex::encode(share.template)));
            set("height", share.height.into());
            set("previous_block_hash", Value::Text(reversed(&share.previous_block_hash)));
            set("difficulty", Value::Float(share.difficulty));
            set("version", share.version.into());
            set("ntime", share.ntime.into());
            set("nonce", share.nonce.into());
            set("extranonce", Value::Text(hex::encode(share.extranonce)));
            set("held", Value::Bool(share.held));
            set("solves_block", Value::Bool(share.solves_block));
        }
        Record::Forwarded(result) => {
            set("event", "share_forward_result".into());
            set("reason", result.reason().code().into());
            set("detail", result.detail.into());
            set("attempts", result.attempts.into());
        }
        Record::Block(block) => {
            set("event", "block_found".into());
            set("user_identity", block.user_identity.into());
            set("height", block.height.into());
            set("reason", block.outcome.reason().code().into());
            set("detail", block.detail.into());
            set("coinbase_value", block.coinbase_value.into());
        }
    }
    row
}

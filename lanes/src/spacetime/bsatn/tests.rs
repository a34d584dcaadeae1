//! Whatever is written is read again as it was; whatever else arrives is refused, without a panic or a large allocation.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::spacetime::message::{
    ClientMessage, ConnectionId, DatabaseUpdate, Encoded, Energy, Identity, Maybe, MessageId,
    MultiApplied, OneOffQueryResponse, OneOffTable, QueryId, QueryUpdate, ReducerCall,
    ServerMessage, SubscriptionError, TableUpdate, TimeDuration, Timestamp, TransactionUpdate,
    UpdateStatus,
};

fn encoded() -> impl Strategy<Value = Encoded> {
    vec(any::<u8>(), 0..24).prop_map(Encoded::Binary)
}

fn update() -> impl Strategy<Value = DatabaseUpdate> {
    let rows = || vec(encoded(), 0..4);
    let query = (rows(), rows()).prop_map(|(deletes, inserts)| QueryUpdate { deletes, inserts });
    let table = (any::<u32>(), ".{0,12}", any::<u64>(), vec(query, 0..3)).prop_map(
        |(table_id, table_name, num_rows, updates)| TableUpdate {
            table_id,
            table_name,
            num_rows,
            updates,
        },
    );
    vec(table, 0..3).prop_map(|tables| DatabaseUpdate { tables })
}

fn status() -> impl Strategy<Value = UpdateStatus> {
    prop_oneof![
        update().prop_map(UpdateStatus::Committed),
        ".{0,40}".prop_map(UpdateStatus::Failed),
        Just(UpdateStatus::OutOfEnergy([])),
    ]
}

fn maybe() -> impl Strategy<Value = Maybe<u32>> {
    any::<Option<u32>>().prop_map(|value| value.map_or(Maybe::NONE, Maybe::Some))
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let applied = (any::<u32>(), any::<u64>(), update());
    let transaction = (status(), any::<[u8; 32]>(), any::<u128>(), encoded());
    let answer = (vec(any::<u8>(), 0..8), vec(encoded(), 0..4));
    let error = (maybe(), maybe(), ".{0,40}");
    prop_oneof![
        applied.prop_map(|(id, micros, update)| {
            ServerMessage::SubscribeMultiApplied(MultiApplied {
                request_id: id,
                total_host_execution_duration_micros: micros,
                query_id: QueryId { id },
                update,
            })
        }),
        transaction.prop_map(|(status, identity, number, args)| {
            ServerMessage::TransactionUpdate(TransactionUpdate {
                status,
                timestamp: Timestamp { micros: 7 },
                caller_identity: Identity::from_le_bytes(identity),
                caller_connection_id: ConnectionId { number },
                reducer_call: ReducerCall {
                    reducer_name: "r".to_owned(),
                    reducer_id: 3,
                    args,
                    request_id: 9,
                },
                energy_quanta_used: Energy { quanta: number },
                total_host_execution_duration: TimeDuration { micros: 1 },
            })
        }),
        answer.prop_map(|(id, rows)| {
            ServerMessage::OneOffQueryResponse(OneOffQueryResponse {
                message_id: MessageId::Bytes(id),
                error: Maybe::NONE,
                tables: vec![OneOffTable {
                    table_name: "t".to_owned(),
                    rows,
                }],
                total_host_execution_duration: TimeDuration::default(),
            })
        }),
        error.prop_map(|(request_id, query_id, error)| {
            ServerMessage::SubscriptionError(SubscriptionError {
                total_host_execution_duration_micros: 1,
                request_id,
                query_id,
                table_id: Maybe::NONE,
                error,
            })
        }),
    ]
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let (number, text) = (any::<u32>, || ".{0,40}");
    prop_oneof![
        (text(), encoded(), number(), any::<u8>()).prop_map(
            |(reducer, args, request_id, flags)| {
                ClientMessage::CallReducer {
                    reducer,
                    args,
                    request_id,
                    flags,
                }
            }
        ),
        (vec(text(), 0..4), number(), number()).prop_map(|(query_strings, request_id, id)| {
            ClientMessage::SubscribeMulti {
                query_strings,
                request_id,
                query_id: QueryId { id },
            }
        }),
        (vec(any::<u8>(), 0..8), text()).prop_map(|(id, query_string)| {
            ClientMessage::OneOffQuery {
                message_id: MessageId::Bytes(id),
                query_string,
            }
        }),
        (number(), number()).prop_map(|(request_id, id)| ClientMessage::UnsubscribeMulti {
            request_id,
            query_id: QueryId { id },
        }),
    ]
}

proptest! {
    #[test]
    fn a_server_message_is_read_as_it_was_written(message in server_message()) {
        let bytes = message.to_bsatn();
        prop_assert_eq!(ServerMessage::from_bsatn(&bytes).unwrap(), message);
    }

    #[test]
    fn a_client_message_is_read_as_it_was_written(message in client_message()) {
        let bytes = message.to_bsatn();
        prop_assert_eq!(ClientMessage::from_bsatn(&bytes).unwrap(), message);
    }

    #[test]
    fn a_message_that_was_cut_or_lengthened_is_refused(message in server_message(), at in any::<prop::sample::Index>()) {
        let mut bytes = message.to_bsatn();
        prop_assert!(ServerMessage::from_bsatn(&bytes[..at.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert_eq!(ServerMessage::from_bsatn(&bytes), Err(BsatnError::Long(1)));
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in vec(any::<u8>(), 0..200), tag in 0_u8..12) {
        let _ = ClientMessage::from_bsatn(&bytes);
        let _ = ServerMessage::from_bsatn(&bytes);
        let _ = ServerMessage::from_bsatn(&[&[0, tag][..], &bytes].concat());
    }

    #[test]
    fn a_message_with_one_other_byte_makes_no_decoder_panic(
        message in server_message(), at in any::<prop::sample::Index>(), byte in any::<u8>()
    ) {
        let mut bytes = message.to_bsatn();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = ServerMessage::from_bsatn(&bytes);
    }

    #[test]
    fn an_identity_is_the_same_in_either_form(bytes in any::<[u8; 32]>()) {
        prop_assert_eq!(Identity::from_le_bytes(bytes).to_le_bytes(), bytes);
    }
}

#[test]
fn a_length_beyond_the_message_is_refused_before_anything_is_taken() {
    // SubscribeMulti with 4,294,967,295 queries in no bytes.
    let bytes = [4, 255, 255, 255, 255];
    assert_eq!(
        ClientMessage::from_bsatn(&bytes),
        Err(BsatnError::Short {
            wanted: 4_294_967_295,
            left: 0
        })
    );
}

#[test]
fn rows_of_one_size_need_no_offsets() {
    let list = |size: u16, data: &[u8]| {
        let mut bytes = vec![0];
        size.write(&mut bytes);
        write_bytes(data, &mut bytes);
        row_list::read(&mut Reader::new(&bytes))
    };
    let rows = |rows: &[[u8; 2]]| {
        rows.iter()
            .map(|row| Encoded::Binary(row.to_vec()))
            .collect()
    };
    assert_eq!(list(2, &[1, 2, 3, 4]), Ok(rows(&[[1, 2], [3, 4]])));
    assert_eq!(list(2, &[]), Ok(Vec::new()));
    assert_eq!(list(0, &[]), Ok(Vec::new()));
    assert_eq!(list(2, &[1, 2, 3]), Err(BsatnError::Rows(3)));
    assert_eq!(list(0, &[1]), Err(BsatnError::Rows(1)));
}

#[test]
fn offsets_that_do_not_divide_the_data_are_refused() {
    let list = |offsets: &[u64], data: &[u8]| {
        let mut bytes = vec![1];
        offsets.to_vec().write(&mut bytes);
        write_bytes(data, &mut bytes);
        row_list::read(&mut Reader::new(&bytes))
    };
    assert_eq!(list(&[0, 1], &[1, 2, 3]).unwrap().len(), 2);
    for (offsets, data) in [
        (&[1_u64, 2][..], &[1_u8, 2, 3][..]),
        (&[0, 2, 1], &[1, 2, 3]),
        (&[0, 4], &[1, 2, 3]),
        (&[0, u64::MAX], &[1, 2, 3]),
        (&[], &[1]),
    ] {
        assert_eq!(
            list(offsets, data),
            Err(BsatnError::Rows(data.len())),
            "{offsets:?}"
        );
    }
}

//! Constants of the kernel's user API (linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h), by the kernel's
//! names.

/// `enum nfnl_batch_attributes`.
pub const NFNL_BATCH_GENID: u16 = 1;

/// `enum nft_gen_attributes`.
pub const NFTA_GEN_ID: u16 = 1;

/// `enum nft_object_attributes`.
pub const NFTA_OBJ_TABLE: u16 = 1;
pub const NFTA_OBJ_NAME: u16 = 2;
pub const NFTA_OBJ_TYPE: u16 = 3;
pub const NFTA_OBJ_DATA: u16 = 4;

/// Types of objects.
pub const NFT_OBJECT_CT_TIMEOUT: u32 = 7;

/// `enum nft_ct_timeout_timeout_attributes`.
pub const NFTA_CT_TIMEOUT_L3PROTO: u16 = 1;
pub const NFTA_CT_TIMEOUT_L4PROTO: u16 = 2;
pub const NFTA_CT_TIMEOUT_DATA: u16 = 3;

/// `enum ctattr_timeout_tcp` (linux/netfilter/nfnetlink_cttimeout.h).
pub const CTA_TIMEOUT_TCP_CLOSE_WAIT: u16 = 5;
pub const CTA_TIMEOUT_TCP_LAST_ACK: u16 = 6;

/// `enum nft_objref_attributes`.
pub const NFTA_OBJREF_IMM_TYPE: u16 = 1;
pub const NFTA_OBJREF_IMM_NAME: u16 = 2;

/// `enum nft_list_attributes`.
pub const NFTA_LIST_ELEM: u16 = 1;

/// `enum nft_table_attributes`.
pub const NFTA_TABLE_NAME: u16 = 1;
pub const NFTA_TABLE_FLAGS: u16 = 2;
pub const NFTA_TABLE_USE: u16 = 3;

/// `enum nft_chain_attributes`.
pub const NFTA_CHAIN_TABLE: u16 = 1;
pub const NFTA_CHAIN_NAME: u16 = 3;
pub const NFTA_CHAIN_HOOK: u16 = 4;
pub const NFTA_CHAIN_POLICY: u16 = 5;
pub const NFTA_CHAIN_USE: u16 = 6;
pub const NFTA_CHAIN_TYPE: u16 = 7;

/// `enum nft_hook_attributes`.
pub const NFTA_HOOK_HOOKNUM: u16 = 1;
pub const NFTA_HOOK_PRIORITY: u16 = 2;

/// `enum nft_rule_attributes`.
pub const NFTA_RULE_TABLE: u16 = 1;
pub const NFTA_RULE_CHAIN: u16 = 2;
pub const NFTA_RULE_HANDLE: u16 = 3;
pub const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub const NFTA_RULE_USERDATA: u16 = 7;

/// `enum nft_set_attributes`.
pub const NFTA_SET_TABLE: u16 = 1;
pub const NFTA_SET_NAME: u16 = 2;
pub const NFTA_SET_FLAGS: u16 = 3;
pub const NFTA_SET_KEY_TYPE: u16 = 4;
pub const NFTA_SET_KEY_LEN: u16 = 5;
pub const NFTA_SET_DESC: u16 = 9;
pub const NFTA_SET_ID: u16 = 10;
pub const NFTA_SET_USERDATA: u16 = 13;

/// `enum nft_set_desc_attributes`.
pub const NFTA_SET_DESC_SIZE: u16 = 1;

/// `enum nft_set_elem_list_attributes`.
pub const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// `enum nft_set_elem_attributes`.
pub const NFTA_SET_ELEM_KEY: u16 = 1;
pub const NFTA_SET_ELEM_FLAGS: u16 = 3;

/// `enum nft_data_attributes`.
pub const NFTA_DATA_VALUE: u16 = 1;
pub const NFTA_DATA_VERDICT: u16 = 2;

/// `enum nft_verdict_attributes`.
pub const NFTA_VERDICT_CODE: u16 = 1;
pub const NFTA_VERDICT_CHAIN: u16 = 2;

/// `enum nft_expr_attributes`.
pub const NFTA_EXPR_NAME: u16 = 1;
pub const NFTA_EXPR_DATA: u16 = 2;

/// `enum nft_immediate_attributes`.
pub const NFTA_IMMEDIATE_DREG: u16 = 1;
pub const NFTA_IMMEDIATE_DATA: u16 = 2;

/// `enum nft_bitwise_attributes`.
pub const NFTA_BITWISE_SREG: u16 = 1;
pub const NFTA_BITWISE_DREG: u16 = 2;
pub const NFTA_BITWISE_LEN: u16 = 3;
pub const NFTA_BITWISE_MASK: u16 = 4;
pub const NFTA_BITWISE_XOR: u16 = 5;
pub const NFTA_BITWISE_DATA: u16 = 7;

/// `enum nft_byteorder_attributes`.
pub const NFTA_BYTEORDER_SREG: u16 = 1;
pub const NFTA_BYTEORDER_DREG: u16 = 2;
pub const NFTA_BYTEORDER_OP: u16 = 3;
pub const NFTA_BYTEORDER_LEN: u16 = 4;
pub const NFTA_BYTEORDER_SIZE: u16 = 5;

/// `enum nft_byteorder_ops`.
pub const NFT_BYTEORDER_HTON: u32 = 1;

/// `enum nft_cmp_attributes`.
pub const NFTA_CMP_SREG: u16 = 1;
pub const NFTA_CMP_OP: u16 = 2;
pub const NFTA_CMP_DATA: u16 = 3;

/// `enum nft_cmp_ops`.
pub const NFT_CMP_EQ: u32 = 0;
pub const NFT_CMP_NEQ: u32 = 1;

/// `enum nft_lookup_attributes`.
pub const NFTA_LOOKUP_SET: u16 = 1;
pub const NFTA_LOOKUP_SREG: u16 = 2;

/// `enum nft_payload_attributes`.
pub const NFTA_PAYLOAD_DREG: u16 = 1;
pub const NFTA_PAYLOAD_BASE: u16 = 2;
pub const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub const NFTA_PAYLOAD_LEN: u16 = 4;

/// `enum nft_payload_bases`.
pub const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
pub const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;

/// `enum nft_meta_attributes`.
pub const NFTA_META_DREG: u16 = 1;
pub const NFTA_META_KEY: u16 = 2;
pub const NFTA_META_SREG: u16 = 3;

/// The index of `lo` in each network namespace (include/net/flow.h).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// `enum nft_meta_keys`.
pub const NFT_META_MARK: u32 = 3;
pub const NFT_META_IIFNAME: u32 = 6;
pub const NFT_META_OIFNAME: u32 = 7;
pub const NFT_META_IIFTYPE: u32 = 8;
pub const NFT_META_SKUID: u32 = 10;
pub const NFT_META_SKGID: u32 = 11;
pub const NFT_META_NFTRACE: u32 = 12;
pub const NFT_META_NFPROTO: u32 = 15;
pub const NFT_META_L4PROTO: u32 = 16;

/// `enum nft_ct_attributes`.
pub const NFTA_CT_DREG: u16 = 1;
pub const NFTA_CT_KEY: u16 = 2;
pub const NFTA_CT_SREG: u16 = 4;

/// `enum nft_ct_keys`.
pub const NFT_CT_STATE: u32 = 0;
pub const NFT_CT_MARK: u32 = 3;
pub const NFT_CT_ZONE: u32 = 17;

/// `enum nft_redir_attributes`.
pub const NFTA_REDIR_REG_PROTO_MIN: u16 = 1;
pub const NFTA_REDIR_REG_PROTO_MAX: u16 = 2;
pub const NFTA_REDIR_FLAGS: u16 = 3;

/// `enum nft_tproxy_attributes`.
pub const NFTA_TPROXY_FAMILY: u16 = 1;
pub const NFTA_TPROXY_REG_PORT: u16 = 3;

/// `enum nft_socket_attributes`.
pub const NFTA_SOCKET_KEY: u16 = 1;
pub const NFTA_SOCKET_DREG: u16 = 2;
pub const NFTA_SOCKET_LEVEL: u16 = 3;

/// `enum nft_socket_keys`.
pub const NFT_SOCKET_CGROUPV2: u32 = 3;

/// `enum nft_counter_attributes`.
pub const NFTA_COUNTER_PACKETS: u16 = 2;

/// `enum nft_limit_attributes`.
pub const NFTA_LIMIT_RATE: u16 = 1;
pub const NFTA_LIMIT_UNIT: u16 = 2;
pub const NFTA_LIMIT_BURST: u16 = 3;

/// `enum nft_target_attributes` (linux/netfilter/nf_tables_compat.h).
pub const NFTA_TARGET_NAME: u16 = 1;
pub const NFTA_TARGET_REV: u16 = 2;
pub const NFTA_TARGET_INFO: u16 = 3;

/// `enum nft_match_attributes` (linux/netfilter/nf_tables_compat.h).
pub const NFTA_MATCH_NAME: u16 = 1;
pub const NFTA_MATCH_INFO: u16 = 3;

/// `enum nft_trace_attributes`.
pub const NFTA_TRACE_TABLE: u16 = 1;
pub const NFTA_TRACE_CHAIN: u16 = 2;
pub const NFTA_TRACE_RULE_HANDLE: u16 = 3;
pub const NFTA_TRACE_TYPE: u16 = 4;
pub const NFTA_TRACE_VERDICT: u16 = 5;
pub const NFTA_TRACE_ID: u16 = 6;
pub const NFTA_TRACE_NETWORK_HEADER: u16 = 8;
pub const NFTA_TRACE_TRANSPORT_HEADER: u16 = 9;
pub const NFTA_TRACE_OIFTYPE: u16 = 13;
pub const NFTA_TRACE_POLICY: u16 = 16;

/// `enum nft_trace_types`.
pub const NFT_TRACETYPE_POLICY: u32 = 1;
pub const NFT_TRACETYPE_RETURN: u32 = 2;
pub const NFT_TRACETYPE_RULE: u32 = 3;

/// `enum nft_table_flags`: the kernel deletes the table when the socket that created it is closed. Since Linux 5.12.
pub const NFT_TABLE_F_OWNER: u32 = 2;

/// `enum nft_registers`.
pub const NFT_REG_VERDICT: u32 = 0;
pub const NFT_REG_1: u32 = 1;

/// `enum nft_verdicts`, and those of linux/netfilter.h.
pub const NF_DROP: u32 = 0;
pub const NF_ACCEPT: u32 = 1;
pub const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
pub const NFT_RETURN: u32 = (-5_i32).cast_unsigned();

/// `enum nft_set_flags`.
pub const NFT_SET_INTERVAL: u32 = 4;
/// `enum nft_set_elem_flags`.
pub const NFT_SET_ELEM_INTERVAL_END: u32 = 1;

/// Protocol families of netfilter (linux/netfilter.h).
pub const NFPROTO_UNSPEC: u8 = 0;
pub const NFPROTO_INET: u8 = 1;
pub const NFPROTO_IPV4: u8 = 2;
pub const NFPROTO_IPV6: u8 = 10;

/// Protocols of IP (linux/in.h).
pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_ICMPV6: u8 = 58;

/// `enum ip_conntrack_info` as bits (`NF_CT_STATE_BIT`, linux/netfilter/nf_conntrack_common.h).
pub const NF_CT_STATE_INVALID: u32 = 1;
pub const NF_CT_STATE_ESTABLISHED: u32 = 2;
pub const NF_CT_STATE_RELATED: u32 = 4;
pub const NF_CT_STATE_NEW: u32 = 8;

/// `enum ip_conntrack_status` (linux/netfilter/nf_conntrack_common.h).
pub const IPS_DST_NAT: u32 = 1 << 5;
/// `enum ip_conntrack_dir` (linux/netfilter/nf_conntrack_tuple_common.h).
pub const IP_CT_DIR_REPLY: u8 = 1;

/// `enum nft_reject_attributes`, `enum nft_reject_types` and `enum nft_reject_inet_code`.
pub const NFTA_REJECT_TYPE: u16 = 1;
pub const NFTA_REJECT_ICMP_CODE: u16 = 2;
pub const NFT_REJECT_ICMP_UNREACH: u32 = 0;
pub const NFT_REJECT_TCP_RST: u32 = 1;
pub const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
pub const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;
/// Codes of "destination unreachable": `linux/icmp.h`, `linux/icmpv6.h`.
pub const ICMP_PKT_FILTERED: u8 = 13;
pub const ICMPV6_ADM_PROHIBITED: u8 = 1;

/// The range gives a port (linux/netfilter/nf_nat.h).
pub const NF_NAT_RANGE_PROTO_SPECIFIED: u32 = 2;

/// More of `enum nft_set_attributes`, `enum nft_set_elem_attributes` and `enum nft_lookup_attributes`.
pub const NFTA_SET_ELEM_DATA: u16 = 2;
pub const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub const NFTA_LOOKUP_DREG: u16 = 3;
pub const NFTA_LOOKUP_FLAGS: u16 = 5;
pub const NFT_LOOKUP_F_INV: u32 = 1;

/// More of `enum nft_meta_keys`.
pub const NFT_META_PROTOCOL: u32 = 1;
pub const NFT_META_PRIORITY: u32 = 2;
pub const NFT_META_IIF: u32 = 4;
pub const NFT_META_OIF: u32 = 5;

/// More of `enum nft_ct_keys`.
pub const NFT_CT_DIRECTION: u32 = 1;
pub const NFT_CT_STATUS: u32 = 2;

/// More of `enum nft_cmp_ops`.
pub const NFT_CMP_LT: u32 = 2;
pub const NFT_CMP_LTE: u32 = 3;
pub const NFT_CMP_GT: u32 = 4;
pub const NFT_CMP_GTE: u32 = 5;

/// `enum nft_bitwise_attributes`, its operation; 0 is `NFT_BITWISE_MASK_XOR`.
pub const NFTA_BITWISE_OP: u16 = 6;

/// `enum nft_range_attributes`.
pub const NFTA_RANGE_SREG: u16 = 1;
pub const NFTA_RANGE_OP: u16 = 2;
pub const NFTA_RANGE_FROM_DATA: u16 = 3;
pub const NFTA_RANGE_TO_DATA: u16 = 4;

/// `enum nft_payload_attributes`: the source of a write.
pub const NFTA_PAYLOAD_SREG: u16 = 5;

/// `enum nft_fib_attributes`, a result and flags.
pub const NFTA_FIB_DREG: u16 = 1;
pub const NFTA_FIB_RESULT: u16 = 2;
pub const NFTA_FIB_FLAGS: u16 = 3;
pub const NFT_FIB_RESULT_OIF: u32 = 1;
pub const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub const NFTA_FIB_F_SADDR: u32 = 1;
pub const NFTA_FIB_F_DADDR: u32 = 2;
pub const NFTA_FIB_F_IIF: u32 = 8;
pub const NFTA_FIB_F_PRESENT: u32 = 32;

/// `enum nft_nat_attributes`; the type is 0 for source and 1 for destination.
pub const NFTA_NAT_TYPE: u16 = 1;
pub const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
pub const NFTA_NAT_REG_ADDR_MAX: u16 = 4;
pub const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
pub const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
pub const NFTA_NAT_FLAGS: u16 = 7;

/// `enum nft_masq_attributes`.
pub const NFTA_MASQ_FLAGS: u16 = 1;
pub const NFTA_MASQ_REG_PROTO_MIN: u16 = 2;
pub const NFTA_MASQ_REG_PROTO_MAX: u16 = 3;

/// `NF_NAT_RANGE_PROTO_RANDOM` and `NF_NAT_RANGE_PROTO_RANDOM_FULLY` (linux/netfilter/nf_nat.h).
pub const NF_NAT_RANGE_PROTO_RANDOM_ALL: u32 = 4 | 16;
/// `NF_NAT_RANGE_NETMAP`.
pub const NF_NAT_RANGE_NETMAP: u32 = 64;

/// `enum nft_match_attributes` and `enum nft_target_attributes` (linux/netfilter/nf_tables_compat.h and nf_tables.h).
pub const NFTA_EXTENSION_NAME: u16 = 1;
pub const NFTA_EXTENSION_REV: u16 = 2;
pub const NFTA_EXTENSION_INFO: u16 = 3;

/// More of `enum nft_verdicts`, and the mask of those of linux/netfilter.h.
pub const NFT_GOTO: u32 = (-4_i32).cast_unsigned();
pub const NFT_CONTINUE: u32 = (-1_i32).cast_unsigned();
pub const NF_VERDICT_MASK: u32 = 0xff;
pub const NF_QUEUE: u32 = 3;

/// `enum nft_objref_attributes`: the type of the object.
pub const NFT_OBJECT_COUNTER: u32 = 1;
pub const NFT_OBJECT_CT_HELPER: u32 = 3;
pub const NFT_OBJECT_CT_EXPECT: u32 = 9;

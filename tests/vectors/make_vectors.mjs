// Writes transactions.json and keyring.json beside this file, with libraries that share no code with dapi.
// How to run it: README.md. The same input gives the same output: all keys, salts and nonces come from hashes of names.
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { Secp256k1, Secp256k1Signature, sha256 } from "@cosmjs/crypto";
import { toBech32, toHex, fromHex } from "@cosmjs/encoding";
import { DirectSecp256k1Wallet, makeAuthInfoBytes, makeSignBytes, makeSignDoc } from "@cosmjs/proto-signing";
import { MsgExec } from "cosmjs-types/cosmos/authz/v1beta1/tx";
import { Record } from "cosmjs-types/cosmos/crypto/keyring/v1/record";
import { PrivKey, PubKey } from "cosmjs-types/cosmos/crypto/secp256k1/keys";
import { SignMode } from "cosmjs-types/cosmos/tx/signing/v1beta1/signing";
import { AuthInfo, TxBody, TxRaw } from "cosmjs-types/cosmos/tx/v1beta1/tx";
import { CompactEncrypt } from "jose";
import protobuf from "protobufjs";

const bytesFrom = (label, length) => new Uint8Array(createHash("sha256").update(label).digest().subarray(0, length));
const BATCH = "/inference.inference.MsgSubmitPocBatch";
const VALIDATION = "/inference.inference.MsgSubmitPocValidation";
const EXEC = "/cosmos.authz.v1beta1.MsgExec";
const PUB_KEY = "/cosmos.crypto.secp256k1.PubKey";
const PRIV_KEY = "/cosmos.crypto.secp256k1.PrivKey";

const wallets = {
  participant: bytesFrom("dapi participant", 32),
  warm: bytesFrom("dapi warm", 32),
  ones: new Uint8Array(32).fill(1),
};

async function account(secret) {
  const wallet = await DirectSecp256k1Wallet.fromKey(secret, "gonka");
  const [{ address, pubkey }] = await wallet.getAccounts();
  return { wallet, address, pubkey };
}

// The network's own messages, from the table of its document. Defaults are left out, as its chain wants it.
const root = protobuf.parse(`
  syntax = "proto3";
  message MsgSubmitPocBatch {
    string creator = 1; int64 height = 2; string batch_id = 3; repeated int64 nonces = 4; repeated double dist = 5;
    string node_id = 6;
  }
  message MsgSubmitPocValidation {
    string creator = 1; string participant_address = 2; int64 height = 3; repeated int64 nonces = 4;
    repeated double dist = 5; repeated double received_dist = 6; double r_target = 7; double fraud_threshold = 8;
    int64 n_invalid = 9; double probability_honest = 10; bool fraud_detected = 11;
  }`, { keepCase: true }).root;
const isDefault = (value) => value === "" || value === "0" || value === 0 || value === false;
function encoder(typeUrl) {
  const type = root.lookupType(typeUrl.split(".").pop());
  return (creator, fields) => {
    const entries = Object.entries({ creator, ...fields }).filter(([, value]) => !isDefault(value));
    return new Uint8Array(type.encode(type.fromObject(Object.fromEntries(entries))).finish());
  };
}

const encoders = { [BATCH]: encoder(BATCH), [VALIDATION]: encoder(VALIDATION) };

const golden = { height: "1000", batch_id: "b-1", nonces: ["7", "300"], dist: [0.5, 1.25], node_id: "node1" };
const small = {
  height: "17280",
  batch_id: "6f1c".repeat(16),
  nonces: ["0", "1", "127", "128", "16384", "9223372036854775807"],
  dist: [0, 1e-300, 0.1, 1.4013564660458173, 5e-324, 1.7976931348623157e308],
  node_id: "nœud-é-1",
};
const long = {
  height: "9007199254740993",
  batch_id: "long",
  nonces: Array.from({ length: 200 }, (_, i) => String(BigInt(i) * 1000003n)),
  dist: Array.from({ length: 200 }, (_, i) => i / 1000),
  node_id: "node2",
};
const fraud = {
  participant_address: "gonka10xcqpzrky6eff2g52qdye53xkk9jxkvr34az8p",
  height: "17280",
  r_target: 1.4013564660458173,
  fraud_threshold: 1e-7,
  n_invalid: "12",
  probability_honest: 3.5e-9,
  fraud_detected: true,
};
const honest = { ...fraud, n_invalid: "0", probability_honest: 1, fraud_detected: false };

const MAINNET = { chain_id: "gonka-mainnet", account_number: "42", gas_limit: 1_000_000_000 };
const cases = [
  { name: "golden", signer: "ones", participant: "ones", ...MAINNET, timeout_ns: "1700000060000000001",
    messages: [[BATCH, golden]] },
  { name: "one generated batch", signer: "participant", participant: "participant", ...MAINNET,
    timeout_ns: "1764000000123456789", messages: [[BATCH, small]] },
  { name: "one validation with fraud", signer: "participant", participant: "participant", ...MAINNET,
    timeout_ns: "1764000000999999999", messages: [[VALIDATION, fraud]] },
  { name: "one validation without fraud", signer: "participant", participant: "participant", ...MAINNET,
    timeout_ns: "1764000000000000000", messages: [[VALIDATION, honest]] },
  { name: "several messages", signer: "participant", participant: "participant", chain_id: "a", account_number: "0",
    gas_limit: 1, timeout_ns: "1764000001000000127", messages: [[BATCH, small], [VALIDATION, fraud], [BATCH, long]] },
  { name: "one batch, warm key", signer: "warm", participant: "participant", ...MAINNET,
    timeout_ns: "1764000002000000128", messages: [[BATCH, golden]] },
  { name: "several messages, warm key", signer: "warm", participant: "participant", chain_id: "gonka-testnet-7",
    account_number: "18446744073709551615", gas_limit: 9007199254740991, timeout_ns: "1764000003000016384",
    messages: [[VALIDATION, honest], [BATCH, long], [BATCH, small]] },
];

function readBack(body, authInfo) {
  return {
    messages: body.messages.map(({ typeUrl }) => typeUrl),
    memo: body.memo,
    timeout_height: String(body.timeoutHeight),
    unordered: body.unordered,
    timeout_ns: String(body.timeoutTimestamp.seconds * 1_000_000_000n + BigInt(body.timeoutTimestamp.nanos)),
    auth_info: AuthInfo.toJSON(authInfo),
  };
}

async function makeTransaction(c) {
  const signer = await account(wallets[c.signer]);
  const creator = (await account(wallets[c.participant])).address;
  let messages = c.messages.map(([typeUrl, m]) => ({ typeUrl, value: encoders[typeUrl](creator, m) }));
  if (c.signer !== c.participant) {
    messages = messages.map((message) => (
      { typeUrl: EXEC, value: MsgExec.encode({ grantee: signer.address, msgs: [message] }).finish() }
    ));
  }
  const timeout = BigInt(c.timeout_ns);
  const bodyBytes = TxBody.encode(TxBody.fromPartial({
    messages,
    unordered: true,
    timeoutTimestamp: { seconds: timeout / 1_000_000_000n, nanos: Number(timeout % 1_000_000_000n) },
  })).finish();
  const pubkey = { typeUrl: PUB_KEY, value: PubKey.encode({ key: signer.pubkey }).finish() };
  const authInfoBytes = makeAuthInfoBytes(
    [{ pubkey, sequence: 0 }], [], c.gas_limit, undefined, undefined, SignMode.SIGN_MODE_DIRECT,
  );
  const signDoc = makeSignDoc(bodyBytes, authInfoBytes, c.chain_id, BigInt(c.account_number));
  const { signature } = await signer.wallet.signDirect(signer.address, signDoc);
  const signatureBytes = new Uint8Array(Buffer.from(signature.signature, "base64"));
  const digest = sha256(makeSignBytes(signDoc));
  if (!(await Secp256k1.verifySignature(Secp256k1Signature.fromFixedLength(signatureBytes), digest, signer.pubkey))) {
    throw new Error(`${c.name}: the signature does not verify`);
  }
  const raw = TxRaw.encode({ bodyBytes, authInfoBytes, signatures: [signatureBytes] }).finish();
  const read = TxRaw.decode(raw);
  return {
    name: c.name,
    secret: toHex(wallets[c.signer]),
    signer: signer.address,
    participant: creator,
    chain_id: c.chain_id,
    account_number: c.account_number,
    gas_limit: String(c.gas_limit),
    timeout_ns: c.timeout_ns,
    messages: c.messages.map(([typeUrl, fields]) => ({
      type_url: typeUrl, fields, without_creator: toHex(encoders[typeUrl]("", fields)),
    })),
    sign_doc_sha256: toHex(digest),
    raw: toHex(raw),
    hash: toHex(sha256(raw)).toUpperCase(),
    decoded: readBack(TxBody.decode(read.bodyBytes), AuthInfo.decode(read.authInfoBytes)),
  };
}

function localRecord(name, secret, pubkey) {
  return Record.encode(Record.fromPartial({
    name,
    pubKey: { typeUrl: PUB_KEY, value: PubKey.encode({ key: pubkey }).finish() },
    local: { privKey: { typeUrl: PRIV_KEY, value: PrivKey.encode({ key: secret }).finish() } },
  })).finish();
}

async function encrypt(label, payload, password, { alg = "PBES2-HS256+A128KW", enc = "A256GCM", p2c = 8192 } = {}) {
  return await new CompactEncrypt(new TextEncoder().encode(payload))
    .setProtectedHeader({ alg, enc, created: "2026-01-02 03:04:05.678901234 +0000 UTC" })
    .setKeyManagementParameters({ p2c, p2s: bytesFrom(`salt ${label}`, 12) })
    .setContentEncryptionKey(bytesFrom(`content key ${label}`, 32))
    .setInitializationVector(bytesFrom(`iv ${label}`, 12))
    .encrypt(new TextEncoder().encode(password));
}

const item = (name, data) => JSON.stringify({
  Key: `${name}.info`, Data: Buffer.from(data).toString("base64"), Label: "", Description: "",
  KeychainNotTrustApplication: false, KeychainNotSynchronizable: false,
});

async function makeKeyring() {
  const participant = await account(wallets.participant);
  const warm = await account(wallets.warm);
  const pubKey = (pubkey) => ({ typeUrl: PUB_KEY, value: PubKey.encode({ key: pubkey }).finish() });
  const ofType = (typeUrl) => Record.encode(Record.fromPartial({
    name: "other", pubKey: { typeUrl: typeUrl.replace("PrivKey", "PubKey"), value: new Uint8Array([10, 1, 1]) },
    local: { privKey: { typeUrl, value: PrivKey.encode({ key: bytesFrom("other", 32) }).finish() } },
  })).finish();
  // An unknown field (15, a varint) that a later version of the framework might write.
  const later = new Uint8Array([...localRecord("later", wallets.warm, warm.pubkey), 0x78, 0x01]);
  const legacy = new Uint8Array([0x30, 0x0d, 0xad, 0x15, 0x3d, 0x0a, 0x06, ...new TextEncoder().encode("legacy"), ...bytesFrom("x", 32)]);
  const records = [
    ["participant", localRecord("participant", wallets.participant, participant.pubkey)],
    ["warm/gpu 1%", localRecord("warm/gpu 1%", wallets.warm, warm.pubkey)],
    ["later", later],
    ["offline", Record.encode(Record.fromPartial({ name: "offline", pubKey: pubKey(warm.pubkey), offline: {} })).finish()],
    ["ledger", Record.encode(Record.fromPartial({
      name: "ledger", pubKey: pubKey(warm.pubkey), ledger: { path: { purpose: 44, coinType: 1200 } } })).finish()],
    ["multi", Record.encode(Record.fromPartial({
      name: "multi", pubKey: { typeUrl: "/cosmos.crypto.multisig.LegacyAminoPubKey", value: new Uint8Array() }, multi: {} })).finish()],
    ["ed25519", ofType("/cosmos.crypto.ed25519.PrivKey")],
    ["ethereum", ofType("/ethermint.crypto.v1.ethsecp256k1.PrivKey")],
    ["legacy", legacy],
    ["mismatch", localRecord("mismatch", wallets.participant, warm.pubkey)],
    ["zero", localRecord("zero", new Uint8Array(32), warm.pubkey)],
    ["short", localRecord("short", new Uint8Array(31).fill(1), warm.pubkey)],
    ["empty", Record.encode(Record.fromPartial({ name: "empty" })).finish()],
    ["noise", new Uint8Array([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
  ];
  const files = {};
  const fileName = (name) => `${name.replaceAll("%", "%25").replaceAll("/", "%2F")}.info`;
  for (const [name, data] of records) {
    files[`keyring-test/${fileName(name)}`] = await encrypt(`test ${name}`, item(name, data), "test");
  }
  const password = "pässwörd 1234";
  const own = localRecord("participant", wallets.participant, participant.pubkey);
  files["keyring-file/participant.info"] = await encrypt("file", item("participant", own), password);
  files[`keyring-file/${toHex(bytesFrom("address", 20))}.address`] =
    await encrypt("address", item("x.address", new TextEncoder().encode("participant.info")), password);
  files["keyring-file/rounds.info"] = await encrypt("rounds", item("rounds", own), password, { p2c: 16385 });
  files["keyring-file/cipher.info"] =
    await encrypt("cipher", item("cipher", own), password, { alg: "PBES2-HS512+A256KW" });
  files["keyring-file/payload.info"] = await encrypt("payload", JSON.stringify({ Key: "payload.info" }), password);
  files["keyring-file/text.info"] = await encrypt("text", "no JSON but secret words", password);
  const show = ({ address, pubkey }, secret) => ({ address, public_key: toHex(pubkey), secret: toHex(secret) });
  return {
    password,
    participant: show(participant, wallets.participant),
    warm: show(warm, wallets.warm),
    files,
  };
}

const write = (name, value) => writeFileSync(new URL(name, import.meta.url), `${JSON.stringify(value, null, 1)}\n`);
const transactions = [];
for (const c of cases) transactions.push(await makeTransaction(c));
write("transactions.json", transactions);
write("keyring.json", await makeKeyring());

/**
 * `channel_binding=require`: the server proves, over this very TLS connection, that it knows the password, so that nobody sits
 * in between even where the certificate is not checked. It is what the connection strings of Neon ask for.
 */
import type pg from 'pg'
import { WalbackError } from '../base/errors.ts'

const refusal = (): WalbackError =>
  new WalbackError('database', 'channel binding is required, but the server does not do it', {
    hint: 'it needs TLS and a password stored as scram-sha-256; otherwise leave channel_binding out',
  })

/**
 * Call before `connect`, and call what it returns after. node-postgres binds when the server offers to, but logs in without
 * if it does not. The listeners here run before its own, which `connect` adds, and writes to a destroyed socket go nowhere:
 * so neither a password nor a proof of one is sent. The check after is for a server that asks for nothing at all.
 */
export function insistOnChannelBinding(client: pg.Client): () => void {
  const { connection } = client
  const refuse = (): void => void connection.stream.destroy(refusal())
  let isBound = false
  connection.on('authenticationSASL', ({ mechanisms }: { readonly mechanisms: readonly string[] }) => {
    if (!mechanisms.includes('SCRAM-SHA-256-PLUS')) refuse()
  })
  connection.on('authenticationSASLFinal', () => {
    isBound = true
  })
  connection.on('authenticationCleartextPassword', refuse)
  connection.on('authenticationMD5Password', refuse)
  return () => {
    if (!isBound) throw refusal()
  }
}

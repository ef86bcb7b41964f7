/** The shop's customers: several connections that buy, pay, move house and change their minds, without a pause. */
import { connect, sleep } from '../../src/index.ts'
import { type Client, conninfoOf, type Visitor } from './client.ts'
import { shopSize } from './shop.ts'

/** Between two transactions of one client: busy, but a laptop stays usable. */
const pause_ms = 5

export class Traffic implements AsyncDisposable {
  /** Orders that the shop has confirmed to a customer, by id, in the order in which the confirmations came. */
  readonly orders: number[] = []
  /** Transactions that were committed. */
  committed = 0
  private readonly end = new AbortController()
  private readonly visitor: Visitor
  private readonly running: Promise<unknown>

  /** Starts the clients; `fail` hears of the first that breaks down, for none should. */
  constructor(visitor: Visitor, clients: number, fail: (error: unknown) => void) {
    this.visitor = visitor
    this.running = Promise.all(Array.from({ length: clients }, () => this.work().catch(fail)))
  }

  /** Lets every client finish its transaction and go. */
  async stop(): Promise<void> {
    this.end.abort()
    await this.running
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  private async work(): Promise<void> {
    const { url, role, application, signal } = this.visitor
    const client = await connect(conninfoOf(url, role), { application, signal })
    try {
      while (!this.end.signal.aborted && !signal.aborted) {
        await this.act(client)
        await sleep(pause_ms, this.end.signal).catch(() => undefined)
      }
    } finally {
      await client.end().catch(() => undefined)
    }
  }

  private async act(client: Client): Promise<void> {
    const dice = Math.random()
    if (dice < 0.5) {
      const order = await placeOrder(client)
      if (order === undefined) return
      this.orders.push(order)
    } else if (dice < 0.7) {
      await client.query(`UPDATE orders SET status = 'paid' WHERE id = $1`, [upTo(shopSize.orders)])
    } else if (dice < 0.8) {
      await client.query('DELETE FROM order_items WHERE order_id = $1 AND line > 1', [upTo(shopSize.orders)])
    } else if (dice < 0.9) {
      const address = { city: `City ${upTo(90)}`, zip: 10_000 + upTo(9999) }
      await client.query('UPDATE customers SET address = $2 WHERE id = $1', [upTo(shopSize.customers), address])
    } else if (dice < 0.95) {
      await client.query('UPDATE products SET price = price + 0.01, stock = stock + 5 WHERE id = $1', [
        upTo(shopSize.products),
      ])
    } else {
      await client.query('DELETE FROM audit_log WHERE order_id = $1', [upTo(shopSize.orders)])
    }
    this.committed++
  }
}

/** An order with one to five items; its id once it is committed. Of some the payment fails, and they are rolled back. */
async function placeOrder(client: Client): Promise<number | undefined> {
  const products = Array.from({ length: upTo(5) }, () => upTo(shopSize.products))
  await client.query('BEGIN')
  // In the order of their ids, so that two orders for the same things never wait for each other.
  await client.query(
    `UPDATE products SET stock = stock - 1
     WHERE id IN (SELECT id FROM products WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE)`,
    [products],
  )
  const { rows } = await client.query<{ id: string }>('INSERT INTO orders (customer_id) VALUES ($1) RETURNING id', [
    upTo(shopSize.customers),
  ])
  const id = Number(rows[0]?.id)
  await client.query(
    `INSERT INTO order_items (order_id, line, product_id, quantity, price)
     SELECT $1, line, p.id, 1, p.price
     FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (product, line) JOIN products p ON p.id = product`,
    [id, products],
  )
  const isPaid = Math.random() < 0.95
  await client.query(isPaid ? 'COMMIT' : 'ROLLBACK')
  return isPaid ? id : undefined
}

const upTo = (most: number): number => 1 + Math.floor(Math.random() * most)

/** A little shop: what its database looks like, and what is in it on the first day. */

/**
 * The tables in the order in which every session locks them, so that nobody waits for somebody who waits for him.
 * `audit_log` is written by a trigger of `orders`, and has no key.
 */
export const shopTables = ['products', 'customers', 'orders', 'audit_log', 'order_items'] as const

export const shopSize = { customers: 2000, products: 500, orders: 12_000 } as const

/** Who works for the shop, and who tidies it up. */
export const shopRoles = { application: 'shop_app', cleanup: 'shop_cleanup' } as const

export const shopSql = `
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'cancelled');

CREATE TABLE customers (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  email text NOT NULL UNIQUE,
  name text NOT NULL,
  address jsonb NOT NULL DEFAULT '{}',
  joined timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE products (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sku text NOT NULL UNIQUE,
  title text NOT NULL,
  price numeric(10, 2) NOT NULL CHECK (price > 0),
  stock integer NOT NULL
);

CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  customer_id bigint NOT NULL REFERENCES customers,
  status order_status NOT NULL DEFAULT 'new',
  placed timestamptz NOT NULL DEFAULT now(),
  note text
);
CREATE INDEX orders_of_customer ON orders (customer_id);
CREATE INDEX orders_to_do ON orders (placed) WHERE status = 'new';

CREATE TABLE order_items (
  order_id bigint NOT NULL REFERENCES orders,
  line integer NOT NULL,
  product_id bigint NOT NULL REFERENCES products,
  quantity integer NOT NULL CHECK (quantity > 0),
  price numeric(10, 2) NOT NULL,
  total numeric(12, 2) GENERATED ALWAYS AS (quantity * price) STORED,
  PRIMARY KEY (order_id, line)
);
CREATE INDEX items_of_product ON order_items (product_id);

CREATE TABLE audit_log (at timestamptz NOT NULL, who text NOT NULL, what text NOT NULL, order_id bigint);

CREATE VIEW revenue AS
  SELECT p.sku, p.title, sum(i.quantity) AS sold, sum(i.total) AS revenue
  FROM order_items i JOIN products p ON p.id = i.product_id
  GROUP BY p.sku, p.title;

CREATE FUNCTION audit_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_log VALUES (clock_timestamp(), current_user, lower(TG_OP) || ' ' || NEW.status, NEW.id);
  RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION audit_order();

INSERT INTO customers (email, name, address)
  SELECT 'customer' || n || '@example.com', 'Customer ' || n, jsonb_build_object('city', 'City ' || n % 90, 'zip', 10000 + n)
  FROM generate_series(1, ${shopSize.customers}) n;
INSERT INTO products (sku, title, price, stock)
  SELECT 'SKU-' || lpad(n::text, 5, '0'), 'Product ' || n, 1 + n % 97 + 0.99, 100000
  FROM generate_series(1, ${shopSize.products}) n;
INSERT INTO orders (customer_id, status, placed, note)
  SELECT 1 + n * 7919 % ${shopSize.customers}, 'shipped', now() - n * interval '37 seconds', CASE n % 10 WHEN 0 THEN 'a gift' END
  FROM generate_series(1, ${shopSize.orders}) n;
INSERT INTO order_items (order_id, line, product_id, quantity, price)
  SELECT o, line, p.id, 1 + (o + line) % 3, p.price
  FROM generate_series(1, ${shopSize.orders}) o CROSS JOIN LATERAL generate_series(1, 1 + o % 5) line
  JOIN products p ON p.id = 1 + (o * 31 + line * 17) % ${shopSize.products};
ANALYZE;
`

const roles = Object.values(shopRoles)

/** Roles belong to the whole server, so they are made apart from the database. */
export const rolesSql = roles.map((role) => `CREATE ROLE ${role} LOGIN;`).join('\n')

export const grantsSql = `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ${roles.join(', ')};`

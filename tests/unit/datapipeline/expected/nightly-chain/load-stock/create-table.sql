CREATE TABLE IF NOT EXISTS stock (sku varchar(40) NOT NULL DISTKEY, count integer, price numeric(8,2), counted date, PRIMARY KEY (sku));

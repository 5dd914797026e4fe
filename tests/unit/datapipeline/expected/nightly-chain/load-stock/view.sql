CREATE VIEW stock_first AS SELECT * FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY "sku" ORDER BY _arrival NULLS FIRST, _sequence) AS place FROM stock) AS numbered WHERE place = 1;

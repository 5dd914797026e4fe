create table shop.prices (sku varchar(40), price decimal(8,2), valid timestamp);

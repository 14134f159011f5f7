-- depends: 0001_orders
DROP TABLE promotions;

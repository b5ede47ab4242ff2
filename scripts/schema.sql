-- The template table for MySQL and MariaDB, as the original's migration makes it. SQLite's is created by mega itself.
-- Run it once:  mysql -u root -p DATABASE < scripts/schema.sql
-- With [pdo] table_prefix = P in the configuration, name the table Pwechat_template (or Pmega_wechat_template).

CREATE TABLE IF NOT EXISTS `mega_wechat_template` (
  `tmpl_key`   char(32)     NOT NULL,
  `title`      varchar(100) NOT NULL DEFAULT '',
  `template`   text         NOT NULL,
  `created_at` int(11)      NOT NULL DEFAULT 0,
  `updated_at` int(11)      NOT NULL DEFAULT 0,
  PRIMARY KEY (`tmpl_key`)
) DEFAULT CHARSET = utf8mb4;

DROP TABLE IF EXISTS mega_task;
DROP TABLE IF EXISTS mega_user;
CREATE TABLE mega_task (
    task_id int NOT NULL AUTO_INCREMENT PRIMARY KEY,
    task_name varchar(100) NOT NULL DEFAULT '',
    tmpl_key varchar(50) NOT NULL DEFAULT '',
    file varchar(255) NOT NULL DEFAULT '',
    total int NOT NULL DEFAULT 0,
    success int NOT NULL DEFAULT 0,
    fail int NOT NULL DEFAULT 0,
    file_index int NOT NULL DEFAULT 0,
    send_to_type tinyint NOT NULL DEFAULT 2,
    pid int DEFAULT NULL,
    information varchar(255) NOT NULL DEFAULT '',
    is_delete tinyint NOT NULL DEFAULT 0,
    created_at int NOT NULL DEFAULT 0,
    updated_at int NOT NULL DEFAULT 0,
    status tinyint NOT NULL DEFAULT 0
) DEFAULT CHARSET = utf8mb4;
CREATE TABLE mega_user (
    uid int NOT NULL PRIMARY KEY,
    openid varchar(64) NOT NULL DEFAULT ''
) DEFAULT CHARSET = utf8mb4;

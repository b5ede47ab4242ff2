<?php
// Reads a row of the task table as an installation's pages do, and prints it as they show it.
[, $dsn, $user, $password, $table, $id] = $argv;
$pdo = new PDO("$dsn;charset=utf8mb4", $user, $password, [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION]);
$statement = $pdo->prepare("SELECT * FROM $table WHERE task_id = ? AND is_delete = 0");
$statement->execute([$id]);
$row = $statement->fetch(PDO::FETCH_ASSOC);
$percent = floor(100 * ($row['success'] + $row['fail']) / $row['total']);
$words = ['等待', '运行中', '完成', '失败', '中断', '暂停', '结束'];
$remaining = $row['total'] - $row['success'] - $row['fail'];
echo "{$words[$row['status']]} {$row['success']}+{$row['fail']}/{$row['total']} $percent% ",
    "剩余$remaining 行{$row['file_index']} {$row['information']}\n";

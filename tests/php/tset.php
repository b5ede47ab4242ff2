<?php
// Reloads templates.
require __DIR__ . '/mega.php';
[, $port, $key] = $argv;
$mega = new Mega($port);
$mega->tset(1, $key);
expect('tset', $mega->result(), ['code' => 200, 'opaque' => 1, 'message' => '']);
$mega->tset(2, 'no-such-key');
expect('tset unknown', $mega->result(), ['code' => 400, 'opaque' => 2, 'message' => 'template key not exists']);
echo "ok\n";

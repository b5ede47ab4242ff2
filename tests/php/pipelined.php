<?php
// Pushes a thousand messages before it reads the first answer; answers are matched by opaque.
require __DIR__ . '/mega.php';
[, $port, $key] = $argv;
$mega = new Mega($port);
for ($i = 1; $i <= 1000; $i++) {
    $mega->push($i, "pipe-$i", $key, ['first' => $i]);
}
$seen = [];
for ($i = 1; $i <= 1000; $i++) {
    $result = $mega->result();
    expect('push', [$result['code'], $result['message']], [200, '']);
    $seen[$result['opaque']] = true;
}
expect('answers', count($seen), 1000);
echo "ok\n";

<?php
// A synchronous client: one send after the other, each answered before the next.
require __DIR__ . '/mega.php';
[, $port, $key] = $argv;
$mega = new Mega($port);
for ($i = 1; $i <= 100; $i++) {
    $mega->send($i, "one-$i", $key, ['first' => "第{$i}条 \"quoted\" / 😀"]);
    expect("send $i", $mega->result(), ['code' => 200, 'opaque' => $i, 'message' => '']);
}
$mega->send(0xFFFFFFFF, 'nobody', 'no-such-key', null);
expect('unknown key', $mega->result(), ['code' => 400, 'opaque' => 0xFFFFFFFF, 'message' => 'template key not exists']);
$mega->send(7, 'refused', $key, []);
$result = $mega->result();
expect('refused code', $result['code'], 400);
expect('refused message', json_decode($result['message'], true), ['errcode' => 43004, 'errmsg' => 'require subscribe', 'openid' => 'refused']);
echo "ok\n";

<?php

declare(strict_types=1);

namespace Mega\Tests;

use Mega\Client;
use Mega\Exception\InvalidArgumentException;
use Mega\Message;
use Mega\Options;
use PHPUnit\Framework\TestCase;

final class MessageTest extends TestCase
{
    public function testIdsAreThoseThatMegaTakes(): void
    {
        foreach (['a', 'ORDER-1001', 'x_y-Z09', str_repeat('i', 32)] as $id) {
            $this->assertSame($id, (new Message('o', 'k', [], $id))->id);
        }
        foreach (['', str_repeat('i', 33), 'a b', 'a.b', "a\n", '订单', 'id=1'] as $id) {
            try {
                new Message('o', 'k', [], $id);
                $this->fail("taken: $id");
            } catch (InvalidArgumentException $error) {
                $this->assertStringContainsString('1 to 32 characters', $error->getMessage());
                $this->assertFalse($error->mayBeSent());
            }
        }
    }

    public function testWordsThatWouldBreakTheHeaderAreRefused(): void
    {
        foreach (['', ' ', 'a b', "a\nb", "a\tb", "a\0", "a\x7f"] as $word) {
            foreach ([['openid', $word, 'k'], ['template key', 'o', $word]] as [$what, $openid, $key]) {
                try {
                    new Message($openid, $key);
                    $this->fail('taken: ' . bin2hex($word));
                } catch (InvalidArgumentException $error) {
                    $this->assertStringStartsWith($what, $error->getMessage());
                }
            }
        }
        $this->assertSame('用户甲', (new Message('用户甲', '模板一'))->openid);
    }

    public function testDataThatIsNoJsonIsRefusedWhereItIsWritten(): void
    {
        $this->assertSame('{"first":"您好 / 😀"}', (new Message('o', 'k', ['first' => '您好 / 😀']))->body);
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('the data for o cannot be written as JSON');
        new Message('o', 'k', ['first' => "\xc4\xe3\xba\xc3"]);
    }

    public function testOptionsThatMeanNothingAreRefused(): void
    {
        $bad = [['timeout' => 0.0], ['connectTimeout' => -1.0], ['retryFor' => INF], ['timeout' => NAN],
            ['maxFrame' => 63], ['maxFrame' => 1 << 30]];
        foreach ($bad as $options) {
            try {
                new Options(...$options);
                $this->fail('taken: ' . key($options));
            } catch (InvalidArgumentException $error) {
                $this->assertStringStartsWith(key($options) . ' = ', $error->getMessage());
            }
        }
    }

    public function testAddressesAreAHostAndAPort(): void
    {
        foreach (['127.0.0.1:9501', 'mega.internal:1', '[::1]:9501', '[fe80::1%eth0]:9501'] as $address) {
            $this->assertInstanceOf(Client::class, new Client($address));
        }
        $ports = ['a:0', 'a:00', 'a:65536', '127.0.0.1:99999', '[::1]:70000'];
        foreach (['', 'localhost', 'tcp://a:1', '::1', ':9501', 'a:', 'a:123456', "a:1\n", 'a b:1', ...$ports] as $address) {
            try {
                new Client($address);
                $this->fail("taken: $address");
            } catch (InvalidArgumentException $error) {
                $this->assertStringContainsString('HOST:PORT', $error->getMessage());
            }
        }
    }
}

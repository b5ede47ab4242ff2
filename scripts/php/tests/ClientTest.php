<?php

declare(strict_types=1);

namespace Mega\Tests;

use Mega\Client;
use Mega\Exception\ConnectionException;
use Mega\Exception\FailedException;
use Mega\Exception\InvalidArgumentException;
use Mega\Exception\MegaException;
use Mega\Exception\RefusedException;
use Mega\Exception\RejectedException;
use Mega\Options;
use Mega\Pipeline;
use Mega\Refusal;
use PHPUnit\Framework\TestCase;

/** Single requests and what is answered. */
final class ClientTest extends TestCase
{
    use Failures;

    public function testARequestIsWrittenAsItIsSpelt(): void
    {
        $server = new FakeServer([[
            ['read' => 1, 'answer' => [[0, 200, '']]],
            ['read' => 1, 'answer' => [[1, 200, '']]],
            ['read' => 1, 'answer' => [[2, 200, '']]],
            ['read' => 1, 'answer' => [[3, 200, '']]],
        ]]);
        $client = new Client($server->address);
        $client->send('用户甲', 'k', ['first' => '您好', 'n' => 1]);
        $client->push('o', 'k');
        $client->push('o', 'k', ['a' => null], 'ORDER-1001');
        $client->tset('k');
        $this->assertSame([
            ['connection' => 0, 'header' => 'send 用户甲 k', 'opaque' => 1, 'body' => '{"first":"您好","n":1}'],
            ['connection' => 0, 'header' => 'push o k', 'opaque' => 2, 'body' => '[]'],
            ['connection' => 0, 'header' => 'push o k id=ORDER-1001', 'opaque' => 3, 'body' => '{"a":null}'],
            ['connection' => 0, 'header' => 'tset k', 'opaque' => 4, 'body' => ''],
        ], $server->seen());
    }

    public function testWeChatsErrcodeIsTakenOutOfA400(): void
    {
        $json = '{"errcode":43004,"errmsg":"require subscribe rid: 1-2","openid":"m7"}';
        $failure = $this->failureOf('send', 400, $json);
        $this->assertInstanceOf(RejectedException::class, $failure);
        $this->assertSame([400, 43004, 'require subscribe rid: 1-2', $json], [
            $failure->getCode(), $failure->errcode, $failure->errmsg, $failure->answer,
        ]);
        $this->assertSame(
            'the send to m7 with template k is rejected: WeChat answers 43004 require subscribe rid: 1-2',
            $failure->getMessage()
        );
        $this->assertFalse($failure->mayBeSent());
    }

    public function testA400ThatIsNotWeChatsHasNoErrcode(): void
    {
        foreach (['template key not exists', '', '[1]', '{"errcode":"x"}', '{"errcode":', '12'] as $text) {
            $failure = $this->failureOf('push', 400, $text);
            $this->assertInstanceOf(RejectedException::class, $failure);
            $this->assertSame([null, null, $text], [$failure->errcode, $failure->errmsg, $failure->answer]);
        }
    }

    /** @return iterable<array{int, string, ?Refusal, string, bool}> */
    public static function answers(): iterable
    {
        foreach ([500, 503] as $code) {
            yield [$code, 'queue full', Refusal::QueueFull, 'push', false];
            yield [$code, 'queue full: no room for the next segment: No space left', Refusal::QueueFull, 'push', false];
            yield [$code, 'queue full', Refusal::QueueFull, 'send', false];
            yield [$code, 'stopping', Refusal::Stopping, 'push', false];
            yield [$code, 'stopping', Refusal::Stopping, 'send', true];
            yield [$code, 'draining', Refusal::Draining, 'send', false];
            yield [$code, 'sending suspended: paused by ann', Refusal::Suspended, 'send', true];
            yield [$code, 'the ids of queued messages are being read; come again', Refusal::Ids, 'send', false];
            yield [$code, "the queue's folder was moved away or removed", Refusal::QueueGone, 'push', false];
        }
        yield [503, 'words of another time', Refusal::Other, 'push', false];
        yield [500, 'cannot connect to api.weixin.qq.com', null, 'send', true];
        yield [500, 'the database is gone', null, 'tset', false];
        yield [500, '', null, 'send', true];
        yield [301, 'moved', null, 'push', true];
    }

    /** @dataProvider answers */
    public function testRefusalsAreToldFromFailures(
        int $code,
        string $text,
        ?Refusal $refusal,
        string $command,
        bool $mayBeSent
    ): void {
        $failure = $this->failureOf($command, $code, $text);
        $this->assertInstanceOf($refusal === null ? FailedException::class : RefusedException::class, $failure);
        $this->assertSame($refusal, $failure->refusal ?? null);
        $this->assertSame([$code, $text, $mayBeSent], [$failure->getCode(), $failure->answer, $failure->mayBeSent()]);
    }

    private function failureOf(string $command, int $code, string $text): MegaException
    {
        $server = new FakeServer([[['read' => 1, 'answer' => [[0, $code, $text]]]]]);
        $client = new Client($server->address);
        return self::failure(static fn () => $command === 'tset' ? $client->tset('k') : $client->$command('m7', 'k'));
    }

    public function testAnAnswerInSingleBytesIsTaken(): void
    {
        $answer = '0000001a0000000a726573756c7420353030000000010000000462757379';
        $server = new FakeServer([[['read' => 1], ['bytes' => $answer, 'each' => 1]]]);
        $failure = self::failure(static fn () => (new Client($server->address))->send('o', 'k'));
        $this->assertSame('busy', $failure->answer);
    }

    public function testALongMessageIsWrittenInParts(): void
    {
        $server = new FakeServer([[['read' => 1, 'answer' => [[0, 200, '']]]]]);
        $text = str_repeat('长', 800000);
        (new Client($server->address))->push('o', 'k', ['first' => $text]);
        $this->assertSame($text, json_decode($server->seen()[0]['body'])->first);
    }

    public function testAMessageOfTheLongestFrameIsTakenAndAByteMoreIsNotWritten(): void
    {
        $server = new FakeServer([[['read' => 1, 'answer' => [[0, 200, '']]]]]);
        $client = new Client($server->address, new Options(maxFrame: 1024));
        // 16 of lengths and opaque, `push o k`, `{"a":""}`.
        $room = 1024 - 16 - 8 - 8;
        $failure = self::failure(static fn () => $client->push('o', 'k', ['a' => str_repeat('x', $room + 1)]));
        $this->assertInstanceOf(InvalidArgumentException::class, $failure);
        $this->assertSame('the push to o with template k has 1025 bytes, maxFrame is 1024', $failure->getMessage());
        $client->push('o', 'k', ['a' => str_repeat('x', $room)]);
        $this->assertCount(1, $server->seen());
    }

    public function testOpaqueStartsAgainBehindTheLastAndLeavesOutZero(): void
    {
        $server = new FakeServer([[
            ['read' => 1, 'answer' => [[0, 200, '']]],
            ['read' => 1, 'answer' => [[1, 200, '']]],
        ]]);
        $client = new Client($server->address);
        $pipeline = (new \ReflectionProperty(Client::class, 'pipeline'))->getValue($client);
        (new \ReflectionProperty(Pipeline::class, 'opaque'))->setValue($pipeline, 0xFFFFFFFE);
        $client->push('o', 'k');
        $client->push('o', 'k');
        $this->assertSame([0xFFFFFFFF, 1], array_column($server->seen(), 'opaque'));
    }

    public function testNobodyThereIsAConnectionExceptionAfterRetryFor(): void
    {
        $server = stream_socket_server('tcp://127.0.0.1:0');
        $address = stream_socket_get_name($server, false);
        fclose($server);
        foreach ([0.0, 0.4] as $retryFor) {
            $begun = microtime(true);
            $client = new Client($address, new Options(retryFor: $retryFor));
            $failure = self::failure(static fn () => $client->push('o', 'k', [], 'id'));
            $this->assertInstanceOf(ConnectionException::class, $failure);
            $this->assertFalse($failure->mayBeSent());
            $this->assertStringContainsString('was not sent', $failure->getMessage());
            $this->assertStringContainsString('refused', $failure->getMessage());
            $this->assertStringContainsString($address, $failure->getMessage());
            $took = microtime(true) - $begun;
            $this->assertGreaterThanOrEqual($retryFor, $took);
            $this->assertLessThan($retryFor + 2, $took);
        }
    }

    public function testAnErrorHandlerThatThrowsDoesNotGetInTheWay(): void
    {
        set_error_handler(static function (int $level, string $text): bool {
            throw new \ErrorException($text);
        });
        try {
            $client = new Client('127.0.0.1:1', new Options(retryFor: 0.0));
            $this->assertInstanceOf(ConnectionException::class, self::failure(static fn () => $client->tset('k')));
        } finally {
            restore_error_handler();
        }
    }
}

<?php

declare(strict_types=1);

namespace Mega\Tests;

use Mega\Call;
use Mega\Client;
use Mega\Command;
use Mega\Connection;
use Mega\Exception\ConnectionException;
use Mega\Exception\UnknownOutcomeException;
use Mega\Message;
use Mega\Options;
use Mega\Pipeline;
use PHPUnit\Framework\TestCase;
use Psr\Log\LoggerInterface;

/** Connections that are lost, and what becomes of the requests on them. */
final class LossTest extends TestCase
{
    use Failures;

    private const ANSWERED = [['read' => 1, 'answer' => [[0, 200, '']]]];

    /** @return iterable<string, array{array<string, mixed>}> */
    public static function endings(): iterable
    {
        yield 'closed' => [[]];
        yield 'reset' => [['reset' => true]];
        yield 'closed in the middle of an answer' => [['bytes' => '000000160000000a72657375']];
        yield 'restarted' => [['refuse' => 0.3]];
    }

    /** @dataProvider endings */
    public function testWithAnIdTheRequestIsRepeatedUnderTheSameId(array $ending): void
    {
        foreach (['push', 'send'] as $command) {
            $server = new FakeServer([[['read' => 1], $ending], self::ANSWERED]);
            (new Client($server->address))->$command('o', 'k', ['a' => 1], 'ORDER-1');
            $seen = $server->seen();
            $this->assertSame([0, 1], array_column($seen, 'connection'));
            $this->assertSame(["$command o k id=ORDER-1", "$command o k id=ORDER-1"], array_column($seen, 'header'));
            $this->assertSame(['{"a":1}', '{"a":1}'], array_column($seen, 'body'));
        }
    }

    /** @dataProvider endings */
    public function testWithoutAnIdItIsNotRepeatedAndTheExceptionSaysSo(array $ending): void
    {
        foreach (['push', 'send'] as $command) {
            $server = new FakeServer([[['read' => 1], $ending], self::ANSWERED]);
            $client = new Client($server->address);
            $failure = self::failure(static fn () => $client->$command('o', 'k'));
            $this->assertInstanceOf(UnknownOutcomeException::class, $failure);
            $this->assertTrue($failure->mayBeSent());
            $this->assertStringContainsString("the $command to o with template k may have been sent", $failure->getMessage());
            // The client goes on over a new connection.
            $client->push('o2', 'k');
            $this->assertSame(["0: $command o k", '1: push o2 k'], $server->headers());
        }
    }

    public function testANoToARepeatSaysNothingOfTheFirst(): void
    {
        foreach ([[503, 'the ids of queued messages are being read; come again'], [400, 'template key not exists']] as $no) {
            $server = new FakeServer([[['read' => 1]], [['read' => 1, 'answer' => [[0, ...$no]]]]]);
            $failure = self::failure(static fn () => (new Client($server->address))->push('o', 'k', [], 'id'));
            $this->assertSame($no[0], $failure->getCode());
            $this->assertTrue($failure->mayBeSent());
        }
    }

    public function testATsetIsRepeatedWithoutMoreAdo(): void
    {
        $server = new FakeServer([[['read' => 1]], self::ANSWERED]);
        (new Client($server->address))->tset('k');
        $this->assertSame(['0: tset k', '1: tset k'], $server->headers());
    }

    public function testARequestThatWasNotWrittenAsAWholeIsWrittenAgainWithoutAnId(): void
    {
        // More than both kernels take, and nobody reads it.
        $server = new FakeServer([[['reset' => true]], self::ANSWERED]);
        $text = str_repeat('x', 30 << 20);
        (new Client($server->address, new Options(maxFrame: 64 << 20)))->push('o', 'k', ['a' => $text]);
        $this->assertSame(['1: push o k'], $server->headers());
    }

    public function testAConnectionThatWasClosedWhileIdleIsMadeAnewBeforeAnythingIsWritten(): void
    {
        $server = new FakeServer([self::ANSWERED, self::ANSWERED]);
        $client = new Client($server->address, new Options(retryFor: 0.0));
        $client->push('o1', 'k');
        $pipeline = (new \ReflectionProperty(Client::class, 'pipeline'))->getValue($client);
        $connection = (new \ReflectionProperty(Pipeline::class, 'connection'))->getValue($pipeline);
        $end = [(new \ReflectionProperty(Connection::class, 'stream'))->getValue($connection)];
        $none = null;
        $this->assertSame(1, stream_select($end, $none, $none, 10), 'the end has arrived');
        $client->push('o2', 'k');
        $this->assertSame(['0: push o1 k', '1: push o2 k'], $server->headers());
    }

    public function testAnsweredBeforeTheEndIsAnswered(): void
    {
        $server = new FakeServer([[['read' => 3, 'answer' => [[2, 200, ''], [0, 400, 'no']]]], self::ANSWERED]);
        $messages = [new Message('a', 'k'), new Message('b', 'k', [], 'id-b'), new Message('c', 'k')];
        $results = [];
        foreach ((new Client($server->address))->pushMany($messages) as $place => $result) {
            $results[$place] = $result->failure?->getCode() ?? 200;
        }
        ksort($results);
        $this->assertSame([400, 200, 200], $results);
        $this->assertSame(['0: push a k', '0: push b k id=id-b', '0: push c k', '1: push b k id=id-b'], $server->headers());
    }

    public function testInABatchEachIsTreatedByItselfAndInOrder(): void
    {
        $server = new FakeServer([
            [['read' => 4, 'answer' => [[1, 200, '']]]],
            [['read' => 3, 'answer' => [[0, 200, ''], [2, 200, '']]]],
            [['read' => 1, 'answer' => [[0, 200, '']]]],
        ]);
        $messages = [
            'a' => new Message('a', 'k', [], 'id-a'),
            'b' => new Message('b', 'k'),
            'c' => new Message('c', 'k'),
            'd' => new Message('d', 'k', [], 'id-d'),
            'e' => new Message('e', 'k', [], 'id-e'),
        ];
        $results = [];
        foreach ((new Client($server->address))->sendMany($messages, 4) as $place => $result) {
            $results[$place] = $result->failure === null ? 'ok' : get_class($result->failure);
        }
        ksort($results);
        $lost = UnknownOutcomeException::class;
        $this->assertSame(['a' => 'ok', 'b' => 'ok', 'c' => $lost, 'd' => 'ok', 'e' => 'ok'], $results);
        $this->assertSame([
            '0: send a k id=id-a', '0: send b k', '0: send c k', '0: send d k id=id-d',
            '1: send a k id=id-a', '1: send d k id=id-d', '1: send e k id=id-e',
            '2: send d k id=id-d',
        ], $server->headers());
    }

    public function testSilenceIsALossAndEndsWithAnUnknownOutcome(): void
    {
        foreach ([null, 'id'] as $id) {
            $server = new FakeServer([[['read' => 1], ['mute' => true]], [['read' => 1], ['mute' => true]]]);
            $client = new Client($server->address, new Options(timeout: 0.2, retryFor: 0.0));
            $begun = microtime(true);
            $failure = self::failure(static fn () => $client->send('o', 'k', [], $id));
            $this->assertInstanceOf(UnknownOutcomeException::class, $failure);
            $this->assertStringContainsString('no answer came within 0.2 s', $failure->getMessage());
            $this->assertGreaterThan(0.19 * ($id === null ? 1 : 2), microtime(true) - $begun);
        }
    }

    public function testBytesThatAreNoAnswerDoNotCountAsLife(): void
    {
        $server = new FakeServer([[
            ['read' => 1],
            ['bytes' => '000000ff0000000a726573756c7420353030' . str_repeat('00', 225), 'each' => 1],
            ['mute' => true],
        ]]);
        $client = new Client($server->address, new Options(timeout: 0.1, retryFor: 0.0));
        $begun = microtime(true);
        $this->assertInstanceOf(UnknownOutcomeException::class, self::failure(static fn () => $client->send('o', 'k')));
        $this->assertLessThan(5.0, microtime(true) - $begun);
    }

    /** @return iterable<string, array{array<string, mixed>, string}> */
    public static function strangers(): iterable
    {
        yield 'another protocol' => [['bytes' => bin2hex("HTTP/1.1 400 Bad Request\r\n\r\n")], 'maxFrame is'];
        yield 'too long' => [['bytes' => 'ffffffff'], 'maxFrame is'];
        yield 'an answer to nothing' => [
            ['bytes' => '000000160000000a726573756c7420323030000000ff00000000'], 'no request asked for',
        ];
        yield 'a frame that mega could not read' => [
            ['bytes' => '000000250000000a726573756c7420353030000000000000000f556e6b6e6f776e20636f6d6d616e64'],
            'no request asked for: Unknown command',
        ];
        yield 'the same answer twice' => [['answer' => [[0, 200, ''], [0, 200, '']]], 'no request asked for'];
    }

    /** @dataProvider strangers */
    public function testWhoIsNoMegaIsNotAskedAgain(array $step, string $why): void
    {
        $server = new FakeServer([[['read' => 2], $step], self::ANSWERED]);
        $client = new Client($server->address, new Options(retryFor: 30.0));
        $begun = microtime(true);
        $messages = [new Message('a', 'k', [], 'id-a'), new Message('b', 'k', [], 'id-b')];
        $results = [];
        $failure = self::failure(static function () use ($client, $messages, &$results) {
            foreach ($client->sendMany($messages) as $place => $result) {
                $results[$place] = $result;
            }
        });
        $this->assertInstanceOf(ConnectionException::class, $failure);
        $this->assertStringContainsString($why, $failure->getMessage());
        $this->assertCount(2, $results);
        $this->assertInstanceOf(UnknownOutcomeException::class, $results[1]->failure);
        $this->assertLessThan(5.0, microtime(true) - $begun);
    }

    public function testWhatMegaWouldNotRecogniseAnyMoreIsNotRepeated(): void
    {
        $call = Call::message(Command::Send, new Message('o', 'k', [], 'id'), new \SplQueue());
        $this->assertTrue($call->isRepeatable());
        $begun = new \ReflectionProperty(Call::class, 'begun');
        // A readonly property is set from a copy that was made without the constructor.
        $old = (new \ReflectionClass(Call::class))->newInstanceWithoutConstructor();
        foreach (['command', 'key', 'message', 'inbox', 'place'] as $name) {
            (new \ReflectionProperty(Call::class, $name))->setValue($old, $call->$name);
        }
        $begun->setValue($old, $begun->getValue($call) - 541.0);
        $this->assertFalse($old->isRepeatable());
    }

    public function testALoggerIsTold(): void
    {
        $logger = $this->createMock(LoggerInterface::class);
        $logger->expects($this->once())->method('warning')->with(
            'the connection to mega at {address} is lost: {why}; requests to write again: {kept}',
            $this->callback(static fn (array $context) => $context['kept'] === 1)
        );
        $logger->expects($this->once())->method('info');
        $server = new FakeServer([[['read' => 1]], self::ANSWERED]);
        (new Client($server->address, null, $logger))->push('o', 'k', [], 'id');
    }
}

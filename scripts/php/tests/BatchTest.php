<?php

declare(strict_types=1);

namespace Mega\Tests;

use Mega\Client;
use Mega\Exception\ConnectionException;
use Mega\Exception\InvalidArgumentException;
use Mega\Exception\RejectedException;
use Mega\Message;
use Mega\Options;
use PHPUnit\Framework\TestCase;

final class BatchTest extends TestCase
{
    /** @return \Generator<string, Message> */
    private static function messages(int $count, ?int &$taken = null): \Generator
    {
        for ($taken = 1; $taken <= $count; $taken++) {
            yield "m$taken" => new Message("m$taken", 'k');
        }
        $taken = $count;
    }

    public function testResultsComeInTheOrderOfTheAnswersUnderTheListsKeys(): void
    {
        $server = new FakeServer([[
            ['read' => 3, 'answer' => [[2, 200, ''], [0, 400, 'no'], [1, 200, '']]],
        ]]);
        $got = [];
        foreach ((new Client($server->address))->sendMany(self::messages(3)) as $place => $result) {
            $this->assertSame($place, $result->message->openid);
            $this->assertSame($place !== 'm1', $result->ok());
            $got[] = $place;
        }
        $this->assertSame(['m3', 'm1', 'm2'], $got);
    }

    public function testNoMoreThanTheWindowIsEverOutstanding(): void
    {
        $server = new FakeServer([[
            ['read' => 3],
            ['answer' => [[1, 200, '']]],
            ['read' => 1],
            ['answer' => [[0, 200, ''], [2, 200, ''], [3, 200, '']]],
            ['read' => 2, 'answer' => [[5, 200, ''], [4, 200, '']]],
        ]]);
        $got = [];
        foreach ((new Client($server->address))->sendMany(self::messages(6, $taken), 3) as $place => $result) {
            $got[] = $place;
            $this->assertTrue($result->ok());
            if (count($got) === 1) {
                $this->assertSame(4, $taken, 'the window is full again before the first result is given');
            }
        }
        $this->assertCount(6, $got);
        $this->assertCount(6, $server->seen());
    }

    public function testAListIsNotAskedForMoreThanTheWindowHolds(): void
    {
        $server = new FakeServer([[['read' => 2], ['mute' => true]]]);
        $results = (new Client($server->address, new Options(timeout: 0.1, retryFor: 0.0)))
            ->sendMany(self::messages(100, $taken), 2);
        $results->current();
        // Two were lost, and two take their place.
        $this->assertSame(4, $taken);
    }

    public function testAWindowOfOneIsOneAtATime(): void
    {
        $server = new FakeServer([array_map(
            static fn (int $i) => ['read' => 1, 'answer' => [[$i, 200, '']]],
            range(0, 9)
        )]);
        $got = iterator_to_array((new Client($server->address))->pushMany(self::messages(10), 1));
        $this->assertSame(array_map(static fn (int $i) => "m$i", range(1, 10)), array_keys($got));
    }

    public function testAnEmptyListIsNoReasonToConnect(): void
    {
        $this->assertSame([], iterator_to_array((new Client('127.0.0.1:1'))->pushMany([])));
    }

    public function testAClientIsUsedWithinItsOwnLoop(): void
    {
        $server = new FakeServer([[
            ['read' => 2, 'answer' => [[0, 400, '{"errcode":43004,"errmsg":"no"}']]],
            ['read' => 1, 'answer' => [[1, 200, ''], [2, 200, '']]],
        ]]);
        $client = new Client($server->address);
        $got = [];
        foreach ($client->sendMany(self::messages(2)) as $place => $result) {
            $got[] = $place;
            if ($result->failure instanceof RejectedException && $result->failure->errcode === 43004) {
                $client->push('instead', 'k');
            }
        }
        $this->assertSame(['m1', 'm2'], $got);
        $this->assertSame(['0: send m1 k', '0: send m2 k', '0: push instead k'], $server->headers());
    }

    public function testWhoLeavesTheLoopEarlyCanGoOnWithTheClient(): void
    {
        $server = new FakeServer([[
            ['read' => 3, 'answer' => [[0, 200, '']]],
            ['read' => 1, 'answer' => [[2, 200, ''], [1, 400, 'no'], [3, 200, '']]],
        ]]);
        $client = new Client($server->address);
        foreach ($client->sendMany(self::messages(3)) as $result) {
            break;
        }
        unset($result);
        $client->push('next', 'k');
        $this->assertCount(4, $server->seen());
    }

    public function testAMessageThatIsTooLongFailsAlone(): void
    {
        $server = new FakeServer([[['read' => 2, 'answer' => [[0, 200, ''], [1, 200, '']]]]]);
        $client = new Client($server->address, new Options(maxFrame: 128));
        $messages = [new Message('a', 'k'), new Message('b', 'k', ['x' => str_repeat('x', 128)]), new Message('c', 'k')];
        $failed = [];
        foreach ($client->pushMany($messages) as $place => $result) {
            $failed[$place] = $result->failure === null ? null : get_class($result->failure);
        }
        ksort($failed);
        $this->assertSame([null, InvalidArgumentException::class, null], $failed);
        $this->assertSame(['0: push a k', '0: push c k'], $server->headers());
    }

    public function testAListThatThrowsEndsTheBatchWhenAllThatWasTakenHasItsResult(): void
    {
        $broken = (static function () {
            yield 'a' => new Message('a', 'k');
            yield 'b' => new Message('b', 'k');
            throw new \DomainException('line 3 is broken');
        })();
        $server = new FakeServer([[['read' => 2, 'answer' => [[1, 200, ''], [0, 200, '']]]]]);
        $got = [];
        try {
            foreach ((new Client($server->address))->pushMany($broken) as $place => $result) {
                $got[] = $place;
            }
            $this->fail('nothing was thrown');
        } catch (\DomainException $error) {
            $this->assertSame('line 3 is broken', $error->getMessage());
        }
        $this->assertSame(['b', 'a'], $got);
    }

    public function testAListOfSomethingElseIsRefused(): void
    {
        $this->expectException(InvalidArgumentException::class);
        $this->expectExceptionMessage('the list holds string, not a Message');
        iterator_to_array((new Client('127.0.0.1:1'))->pushMany(['o']));
    }

    public function testAWindowOfNothingIsRefusedAtOnce(): void
    {
        $this->expectException(InvalidArgumentException::class);
        (new Client('127.0.0.1:1'))->pushMany([], 0);
    }

    public function testABatchEndsWhenMegaStaysAwayAndTellsOfEachThatWasTaken(): void
    {
        $server = new FakeServer([[['read' => 2, 'answer' => [[0, 200, '']]]]]);
        $client = new Client($server->address, new Options(retryFor: 0.2));
        $results = [];
        try {
            foreach ($client->pushMany(self::messages(1000, $taken), 2) as $place => $result) {
                $results[$place] = $result;
            }
            $this->fail('nothing was thrown');
        } catch (ConnectionException $gone) {
            $this->assertStringContainsString($server->address, $gone->getMessage());
        }
        $this->assertSame($taken, count($results));
        $this->assertLessThan(10, $taken);
        $this->assertTrue($results['m1']->ok());
    }

    public function testASlowListDoesNotHoldBackWhatWasTakenFromIt(): void
    {
        $server = new FakeServer([[
            ['read' => 1, 'answer' => [[0, 200, '']]],
            ['read' => 2, 'answer' => [[1, 200, ''], [2, 200, '']]],
        ]]);
        $answered = 0;
        $begun = microtime(true);
        $slow = (static function () use (&$answered) {
            yield new Message('a', 'k');
            // It has nothing else until the first is answered, though the window has room for more.
            $deadline = microtime(true) + 10;
            for ($i = 1; $answered === 0 && microtime(true) < $deadline; $i++) {
                usleep(2000);
                yield new Message("filler-$i", 'k');
            }
        })();
        $client = new Client($server->address, new Options(timeout: 5.0, retryFor: 0.0));
        foreach ($client->pushMany($slow, 1000000) as $result) {
            $answered++;
            break;
        }
        $this->assertSame(1, $answered);
        $this->assertLessThan(5.0, microtime(true) - $begun);
    }
}

<?php

declare(strict_types=1);

namespace Mega\Tests;

use Mega\Answer;
use Mega\Command;
use Mega\Garbled;
use Mega\Message;
use Mega\Call;
use Mega\Wire;
use PHPUnit\Framework\TestCase;

/** Against frames recorded from the original's encoder. */
final class WireTest extends TestCase
{
    private const LONGEST = 2465792;

    /** @return iterable<string, array{array<string, mixed>}> */
    public static function recorded(): iterable
    {
        $file = __DIR__ . '/../../../tests/data/wire.json';
        foreach (json_decode(file_get_contents($file), true, 32, JSON_THROW_ON_ERROR) as $case) {
            yield $case['name'] => [$case];
        }
    }

    /** @dataProvider recorded */
    public function testSpeaksAsTheOriginalDid(array $case): void
    {
        $bytes = hex2bin($case['hex']);
        $args = $case['args'];
        if ($case['command'] === 'result') {
            $rest = $bytes;
            $wanted = new Answer((int) $args['code'], $args['opaque'] ?? 0, $args['message'] ?? '');
            $this->assertEquals([$wanted], Wire::takeAnswers($rest, self::LONGEST));
            $this->assertSame('', $rest);
            return;
        }
        $words = [$case['command'], ...array_values(array_intersect_key($args, ['openid' => 1, 'key' => 1]))];
        $body = array_key_exists('data', $args) ? json_encode($args['data']) : null;
        $this->assertSame(bin2hex($bytes), bin2hex(Wire::request(implode(' ', $words), $args['opaque'], $body)));
    }

    /** @dataProvider recorded */
    public function testAMessageSaysWhatTheOriginalSaid(array $case): void
    {
        $args = $case['args'];
        $valid = ['', $args['openid'] ?? '', $args['key'] ?? ''];
        if (!is_array($args['data'] ?? null) || preg_match('/ /', implode($valid)) || in_array('', array_slice($valid, 1))) {
            $this->expectNotToPerformAssertions();
            return;
        }
        $message = new Message($args['openid'], $args['key'], $args['data']);
        $call = Call::message(Command::from($case['command']), $message, new \SplQueue());
        $frame = $call->frame($args['opaque']);
        $bytes = hex2bin($case['hex']);
        $header = 8 + unpack('N', $bytes, 4)[1] + 4;
        // pack_len and body_len are those of another spelling of the same JSON.
        $this->assertSame(substr($bytes, 4, $header - 4), substr($frame, 4, $header - 4));
        $this->assertEquals(json_decode(substr($bytes, $header + 4)), json_decode(substr($frame, $header + 4)));
        $this->assertSame(strlen($frame) - 4, unpack('N', $frame)[1]);
        $this->assertSame(strlen($frame) - $header - 4, unpack('N', $frame, $header)[1]);
    }

    public function testAnswersComeInAnySegmentation(): void
    {
        $frames = self::answer(200, 7, '') . self::answer(400, 4294967295, '没有') . self::answer(500, 0, 'x');
        $wanted = [new Answer(200, 7, ''), new Answer(400, 4294967295, '没有'), new Answer(500, 0, 'x')];
        for ($size = 1; $size <= strlen($frames); $size++) {
            $received = '';
            $got = [];
            foreach (str_split($frames, $size) as $part) {
                $received .= $part;
                array_push($got, ...Wire::takeAnswers($received, self::LONGEST));
            }
            $this->assertEquals($wanted, $got, "$size bytes at a time");
            $this->assertSame('', $received);
        }
    }

    /** @return iterable<string, array{string}> */
    public static function nonsense(): iterable
    {
        yield 'another protocol' => ["HTTP/1.1 400 Bad Request\r\n\r\n"];
        yield 'nothing in it' => [pack('N', 0)];
        yield 'a header longer than the frame' => [pack('NN', 12, 5) . 'resul' . pack('N', 1)];
        yield 'the longest header' => [pack('NN', 12, 0xFFFFFFFF) . str_repeat('x', 8)];
        yield 'no opaque' => [pack('NN', 14, 10) . 'result 200'];
        yield 'a request' => [Wire::request('push a b', 1, '[]')];
        yield 'no code' => [Wire::request('result ', 1, '')];
        yield 'a code that is none' => [Wire::request('result 2x0', 1, '')];
        yield 'a message longer than the frame' => [pack('NN', 23, 10) . 'result 200' . pack('NN', 1, 2) . 'x'];
        yield 'a message shorter than the frame' => [pack('NN', 23, 10) . 'result 200' . pack('NN', 1, 0) . 'x'];
        yield 'too long' => [pack('N', self::LONGEST - 3)];
    }

    /** @dataProvider nonsense */
    public function testNonsenseIsNoticedBehindWhatIsGood(string $bytes): void
    {
        $received = self::answer(200, 1, '') . $bytes;
        $this->assertEquals([new Answer(200, 1, '')], Wire::takeAnswers($received, self::LONGEST));
        $this->expectException(Garbled::class);
        Wire::takeAnswers($received, self::LONGEST);
    }

    public function testTheLongestAnswerIsWaitedForAndTaken(): void
    {
        $frame = self::answer(400, 1, str_repeat('x', 1000));
        $received = substr($frame, 0, -1);
        $this->assertSame([], Wire::takeAnswers($received, strlen($frame)));
        $received .= substr($frame, -1);
        $this->assertCount(1, Wire::takeAnswers($received, strlen($frame)));
    }

    private static function answer(int $code, int $opaque, string $message): string
    {
        return Wire::request("result $code", $opaque, $message);
    }
}

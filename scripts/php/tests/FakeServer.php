<?php

declare(strict_types=1);

namespace Mega\Tests;

/** `fake_server.php` in a process of its own. */
final class FakeServer
{
    public readonly string $address;

    /** @var resource */
    private $process;

    /** @var resource */
    private $said;

    /** @param list<list<array<string, mixed>>> $script */
    public function __construct(array $script)
    {
        $command = [PHP_BINARY, __DIR__ . '/fake_server.php', json_encode($script)];
        $this->process = proc_open($command, [1 => ['pipe', 'w'], 2 => STDERR], $pipes);
        $this->said = $pipes[1];
        $this->address = json_decode(fgets($this->said));
    }

    public function __destruct()
    {
        proc_terminate($this->process);
        proc_close($this->process);
    }

    /**
     * Everything it has read, when its script has ended.
     *
     * @return list<array{connection: int, header: string, opaque: int, body: string}>
     */
    public function seen(): array
    {
        $seen = [];
        stream_set_timeout($this->said, 30);
        while (($line = fgets($this->said)) !== false) {
            $seen[] = json_decode($line, true) ?? throw new \RuntimeException("the server says $line");
        }
        return $seen;
    }

    /** @return list<string> the headers, with the number of their connection */
    public function headers(): array
    {
        return array_map(static fn (array $frame) => "{$frame['connection']}: {$frame['header']}", $this->seen());
    }
}
